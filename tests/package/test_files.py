"""Files of weights: what is read equals what was written, and is no longer the file's."""

import errno
from pathlib import Path

import pytest
import torch
from rounding import identical
from safetensors import safe_open
from safetensors.torch import save_file

import srbook
from benchmarks.attack import Attempt, files
from srbook.files import atomic_path, checksum, clear_temporary, load_tensors, save_tensors
from srbook.registry import trained


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


def test_the_checksum_is_of_names_types_shapes_values_and_metadata() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.int32)}
    told = checksum(tensors, {"note": "1"})
    assert told == checksum(dict(reversed(tensors.items())), {"note": "1"})  # in any order, and wherever they lie
    assert told == checksum({**tensors, "a": tensors["a"].t().contiguous().t()}, {"note": "1"})
    others = [
        {"c": tensors["a"], "b": tensors["b"]},
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "b": tensors["b"].view(torch.float32)},
        {**tensors, "a": tensors["a"] + torch.eye(2, 3)},
    ]
    assert told not in [checksum(other, {"note": "1"}) for other in others] + [checksum(tensors, {"note": "2"})]


def test_files_of_other_programs_have_no_checksum_and_load(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", {"note": "mine"})
    assert load_tensors(tmp_path / "a.safetensors")[1] == {"note": "mine"}


def test_what_ships_has_a_checksum() -> None:
    folder = Path(srbook.__file__).parent / "weights"
    for name in set(trained()) - {"bicubic"}:
        with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata()["checksum"].startswith("crc32:")


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.txt") and not list(tmp_path.iterdir())
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.txt") as temporary:
        raise OSError(errno.EIO, "Input/output error", str(temporary))
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_what_killed_processes_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / ".srbook-x.png").touch()
    clear_temporary(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def chosen() -> list[Attempt]:
    """The attempts of `python -m benchmarks.attack files`, with some of those that take long."""
    slow = [f"checkpoint: {name}" for name in files.RAW if name not in ("cut in the middle", "a folder", "zeros")]
    flips = [f"{kind}: flipped bit {seed}" for kind in ("weights", "checkpoint") for seed in range(4, files.FLIPS)]
    return [attempt for attempt in files.attempts() if attempt.name not in (*slow, *flips)]


@pytest.mark.parametrize("attempt", chosen(), ids=lambda attempt: attempt.name)
def test_damaged_and_foreign_files_are_refused_by_name(attempt: Attempt, tmp_path: Path) -> None:
    assert attempt.run(tmp_path) in ("clear", "survived")
