"""NIQE: the values of a well-kept program for the same model, its order, and its fit."""

import json
from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose
from torch.distributions import Gamma

from srbook.data import sample
from srbook.degradations import bicubic_downsample, bicubic_upsample
from srbook.metrics import METRICS, fit_pristine, niqe
from srbook.metrics.niqe import asymmetric_gaussian, pristine, save_pristine


def pictures() -> dict[str, torch.Tensor]:
    photograph = sample("chelsea")
    wave = torch.sin(torch.arange(photograph.numel()) * 12.9898).view(photograph.shape)
    blurred = bicubic_upsample(bicubic_downsample(photograph[..., :288, :448], 4), 4)
    return {"photograph": photograph, "noisy": (photograph + 0.05 * wave).clamp(0, 1), "blurred": blurred.clamp(0, 1)}


def test_values_of_pyiqa_and_their_order(vectors: Path):
    """pyiqa 0.1.16 with the book's model. A gray level that rounds the other way elsewhere moves a value by 2e-4."""
    stored = json.loads((vectors / "niqe.json").read_text())
    found = {name: niqe(image).item() for name, image in pictures().items()}
    assert_allclose(list(found.values()), [stored[name] for name in found], rtol=2e-3)
    assert found["photograph"] < found["blurred"] < found["noisy"]


def test_the_moments_give_back_shape_and_scales():
    torch.manual_seed(0)
    for shape, left, right in ((2.0, 1.0, 1.0), (0.8, 0.5, 2.0)):
        size = Gamma(torch.tensor(1 / shape), torch.tensor(1.0)).sample((400_000,)) ** (1 / shape)
        on_left = torch.rand(len(size)) < left / (left + right)
        x = torch.where(on_left, -left * size, right * size).double().view(1, 400, 1000)
        assert_allclose([each.item() for each in asymmetric_gaussian(x)], [shape, left, right], rtol=0.04)


def test_a_model_can_be_fitted_and_kept(tmp_path: Path):
    photograph = pictures()["photograph"]
    model = fit_pristine([photograph, photograph.flip(-1)])
    assert model.mean.shape == (36,) and torch.linalg.eigvalsh(model.covariance).min() > -1e-9
    assert save_pristine(tmp_path / "own.safetensors", model, "a cat, twice").is_file()
    assert niqe(photograph, model) < niqe(pictures()["noisy"], model)
    assert torch.linalg.eigvalsh(pristine().covariance).min() > 0


def test_the_table_has_it_without_a_truth():
    photograph = pictures()["photograph"][..., :192, :192]
    metric = METRICS["niqe"]
    assert not metric.needs_truth and metric.better == "lower"
    assert metric(photograph, photograph, channel="y", border=4) == pytest.approx(niqe(photograph).item())


def test_too_few_blocks_are_refused():
    with pytest.raises(ValueError, match=r"NIQE needs two blocks of 96x96 pixels, got \(100, 190\)"):
        niqe(torch.rand(1, 3, 100, 190))
    with pytest.raises(ValueError, match="a model needs photographs with at least two sharp blocks"):
        fit_pristine([])
    with pytest.raises(ValueError, match="a model has 36 features"):
        niqe(torch.rand(1, 3, 192, 192), pristine()._replace(mean=torch.zeros(3)))
