"""Files of weights: what is read equals what was written, and is no longer the file's."""

from pathlib import Path

import torch
from rounding import identical

from srbook.files import load_tensors, save_tensors


def test_loaded_tensors_own_their_memory(tmp_path: Path) -> None:
    """Of a mapped file they lie at any address, and then a loaded method rounds differently from the saved one."""
    tensors = {f"part{i}": torch.randn(i + 1, 3, generator=torch.Generator().manual_seed(i)) for i in range(9)}
    path = save_tensors(tmp_path / "weights.safetensors", tensors, {"note": "odd sizes"})
    loaded, metadata = load_tensors(path)
    assert metadata == {"note": "odd sizes"} and loaded.keys() == tensors.keys()
    for name, tensor in loaded.items():
        assert tensor.data_ptr() % 64 == torch.empty_like(tensor).data_ptr() % 64 == 0  # as torch allocates
        assert identical(tensor, tensors[name])
    path.write_bytes(b"")
    assert identical(loaded["part8"], tensors["part8"])


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    """As tied weights are, under both of their names."""
    weight = torch.randn(2, 3)
    loaded, _ = load_tensors(save_tensors(tmp_path / "tied.safetensors", {"one": weight, "other": weight}, {}))
    assert identical(loaded, {"one": weight, "other": weight})
