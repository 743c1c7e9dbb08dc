"""Arguments that methods once had under other names: checkpoints written then are read with the present ones."""

from typing import Any

# Of each method, the former name and the present one; a dot leads into a dict.
RENAMED: dict[str, dict[str, str]] = {
    "regression": {"loss": "distance"},
    "srdiff": {"steps": "schedule.steps"},
    "ecdp": {"anchor": "kernel", "features": "quality_features"},
}


def present_arguments(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a stored method under their present names.

    Args:
        kind: of the method.
        arguments: as a file of any version has them. They are not changed.
    """
    present = dict(arguments)
    for former, name in RENAMED.get(kind, {}).items():
        if former in present:
            outer, _, inner = name.rpartition(".")
            value = present.pop(former)
            present[outer or inner] = {inner: value} if outer else value
    if kind == "esrdf" and present.get("entropy") == {}:
        present["entropy"] = None  # said the same
    return present
