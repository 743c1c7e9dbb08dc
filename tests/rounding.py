"""How tests compare numbers: products of matrices round differently on other processors, threads, and addresses."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def identical(one, other) -> bool:
    """Whether two tensors, arrays, or mappings of them hold exactly the same numbers.

    For what was copied, cut out, permuted, read from a file, drawn by one generator, or left alone, and for integers
    and levels of 8 bits. Two computations of one number may round differently, even on one machine, where a tensor
    lies at another address: compare them by `torch.testing.assert_close`, `assert_repeats`, or `apart`.
    """
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(identical(one[name], other[name]) for name in one)
    return torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def assert_repeats(first: Tensor, again: Tensor, other: Tensor) -> None:
    """`again` comes from the seed of `first` and may differ by rounding; `other` comes from another and differs."""
    rounding, seeds = ((first - each).abs().max().item() for each in (again, other))
    assert seeds > 1e-3 * first.abs().max().item(), "another seed gives the same"
    assert rounding < 1e-3 * seeds, "the same seed gives something else"


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """The distance between two trained states as a share of how far the first one went from `start`.

    Measured on trainings of four to eight steps: another arithmetic (fewer vector units, another kernel) sets two
    trainings apart by 1e-6 to 1e-4 in float32 and by 8e-3 in bfloat16, two batches in the wrong order by 2e-2 or more.
    """
    assert one.keys() == other.keys() == start.keys()
    numbers = [name for name, tensor in one.items() if tensor.is_floating_point()]
    assert all(identical(one[name], other[name]) for name in one if name not in numbers)

    def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
        return math.sqrt(sum((a[name].double() - b[name].double()).square().sum().item() for name in numbers))

    return distance(one, other) / distance(one, start)
