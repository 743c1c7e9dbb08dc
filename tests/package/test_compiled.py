"""Parts wrapped by `torch.compile` keep their names in files, checkpoints, and averages."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rounding import identical
from torch import Tensor, nn

import srbook
from srbook.files import load_tensors, save_tensors
from srbook.methods import Method
from srbook.settings import TrainingConfig
from srbook.training import Trainer


class Wrapped(nn.Module):
    """Names its tensors as `torch.compile` does, whose import takes seconds."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *args: Tensor) -> Tensor:
        return self._orig_mod(*args)


def wrapped(name: str, wrap: Callable[[nn.Module], nn.Module] = Wrapped) -> Method:
    method = srbook.build(name)
    method.network = wrap(method.network)
    return method


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(identical(first[name], second[name]) for name in first)


def test_a_compiled_method_saves_names_that_load(tmp_path: Path):
    method = wrapped("sr3-tiny", partial(torch.compile, backend="eager"))  # nothing is called, so nothing compiled
    plain = {name.replace("_orig_mod.", ""): weight for name, weight in method.named_parameters()}
    loaded = srbook.load(method.save(tmp_path / "weights.safetensors"))
    assert same(dict(loaded.named_parameters()), plain)
    again = wrapped("sr3-tiny")
    again.load_state_dict(loaded.state_dict())
    assert same(again.state_dict(), loaded.state_dict())


def test_files_with_the_wrapped_names_load(tmp_path: Path):
    method = srbook.build("sr3-tiny")
    tensors, metadata = load_tensors(method.save(tmp_path / "weights.safetensors"))
    tensors = {name.replace("network.", "network._orig_mod."): tensor for name, tensor in tensors.items()}
    metadata.pop("checksum", None)
    loaded = srbook.load(save_tensors(tmp_path / "wrapped.safetensors", tensors, metadata))
    assert same(loaded.state_dict(), method.state_dict())


def test_a_compiled_method_trains_and_resumes(tmp_path: Path):
    hr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = [(hr, srbook.degradations.bicubic_downsample(hr, 4))] * 4

    def trained(method: Method, steps: int, folder: Path) -> dict[str, torch.Tensor]:
        config = TrainingConfig(steps=steps, batch_size=2, patch_size=16, save_every=1, precision="fp32", warmup=0)
        Trainer(method, batches, config, output=folder, progress=False, device="cpu").fit()
        return method.state_dict()

    method = wrapped("rrdb-tiny")
    begun = {name: weight.clone() for name, weight in method.state_dict().items()}
    plain = srbook.build("rrdb-tiny")
    plain.load_state_dict(begun)
    trained(method, 1, tmp_path / "run")
    resumed = trained(wrapped("rrdb-tiny"), 2, tmp_path / "run")
    assert resumed.keys() == begun.keys()
    assert same(srbook.load(tmp_path / "run" / "weights.safetensors").state_dict(), resumed)
    straight = trained(plain, 2, tmp_path / "plain")
    assert all(torch.allclose(resumed[name], straight[name], atol=1e-6) for name in straight)
