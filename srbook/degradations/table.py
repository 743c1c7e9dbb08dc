"""The degradations by name, and making one from what a preset says."""

from collections.abc import Mapping
from typing import Any

from srbook.degradations.base import Degradation
from srbook.degradations.bicubic import Bicubic, Noisy

DEGRADATIONS: dict[str, type[Degradation]] = {each.kind: each for each in (Bicubic, Noisy)}


def build_degradation(description: str | Mapping[str, Any], scale: int) -> Degradation:
    """A degradation as presets name it.

    Args:
        description: a key of `DEGRADATIONS`, or a mapping with `kind` and the other arguments, such as
            {"kind": "noisy", "std": 0.05}.
        scale: how many times smaller it makes an image.

    Raises:
        ValueError: unknown kind, or arguments that it does not take.
    """
    arguments = {"kind": description} if isinstance(description, str) else dict(description)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {kind!r}; choose from {', '.join(DEGRADATIONS)}")
    try:
        return DEGRADATIONS[kind](scale=scale, **arguments)
    except TypeError as error:
        raise ValueError(f"degradation {kind!r} does not take these arguments: {error}") from error
