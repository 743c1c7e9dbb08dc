"""CLIPIQA and MUSIQ: what they ask of pyiqa, and what is said where it, or its weights, are absent."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from srbook.metrics import METRICS, chosen_metrics, clipiqa, musiq, no_reference


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch):
    """Puts a stand-in for the package in its place."""

    def put(create: Callable[..., object]) -> None:
        monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create))
        no_reference._model.cache_clear()

    yield put
    no_reference._model.cache_clear()


def test_each_image_is_judged_by_itself_and_the_model_is_kept(pyiqa):
    asked, seen = [], []

    def create(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
        asked.append(name)
        return lambda image: seen.append(tuple(image.shape)) or image.mean().reshape(1, 1)

    pyiqa(create)
    images = torch.rand(3, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(clipiqa(images), images.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(musiq(images[:1]), images[:1].mean(dim=(1, 2, 3)))
    clipiqa(images)
    assert asked == ["clipiqa", "musiq"] and set(seen) == {(1, 3, 8, 9)}
    value = METRICS["musiq"](images[:1], images[1:2], channel="y", border=4)
    assert value == pytest.approx(images[0].mean().item())


def test_absent_weights_are_explained_before_any_work(pyiqa):
    def create(name: str, device: torch.device) -> None:
        raise URLError("no network")

    pyiqa(create)
    with pytest.raises(FileNotFoundError, match=r"pyiqa could not get the weights of clipiqa .*no network"):
        chosen_metrics(["psnr", "clipiqa"])


def test_a_missing_pyiqa_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    no_reference._model.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r'pip install "srbook\[iqa\]"'):
        chosen_metrics(["clipiqa"])
