"""The degradations by name, and how a preset's description becomes one."""

from collections.abc import Mapping
from typing import Any

from srbook.arguments import require_instance
from srbook.degradations.base import Degradation
from srbook.degradations.bicubic import Bicubic, Noisy

DEGRADATIONS: dict[str, type[Degradation]] = {each.kind: each for each in (Bicubic, Noisy)}


def build_degradation(description: str | Mapping[str, Any], scale: int) -> Degradation:
    """A degradation as presets name it, by a key of `DEGRADATIONS` or a mapping.

    Mappings have `kind` and the other arguments, such as `{"kind": "noisy", "std": 0.05}`. An unknown kind is a
    ValueError, and so are arguments that it does not take.
    """
    require_instance("description", description, str | Mapping, f"such as {next(iter(DEGRADATIONS))!r}")
    arguments = {"kind": description} if isinstance(description, str) else dict(description)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {kind!r}; choose from {', '.join(DEGRADATIONS)}")
    try:
        return DEGRADATIONS[kind](scale=scale, **arguments)
    except TypeError as error:
        raise ValueError(f"degradation {kind!r} does not take these arguments: {error}") from error
