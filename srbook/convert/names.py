"""The parts of tables of names: layers, lists, and the description of a released network."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Names = dict[str, str]  # our name of each tensor: the released one


@dataclass(frozen=True)
class Released:
    """The weights of one released network.

    Attributes:
        names: makes our names from the released tensors, whose depths and widths tell the network's.
        prefix: of the network's names in a whole checkpoint.
        unused: released tensors that are not weights: their names, or the last parts of them.
    """

    names: Callable[[Mapping[str, Tensor]], Names]
    prefix: str = ""
    unused: frozenset[str] = frozenset()


def layer(ours: str, theirs: str) -> Names:
    """A layer with weight and bias."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Length of the released list `prefix.0`, `prefix.1`, ...: one more than the largest index."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return max((int(match[1]) + 1 for name in state if (match := pattern.match(name))), default=0)


def has(state: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether a released name begins so."""
    return any(name.startswith(prefix) for name in state)
