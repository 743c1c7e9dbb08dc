"""Stored results: numbers that take longer than a live cell, with the machine, date, and command that made them."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def stored_results() -> list[str]:
    """Names of all stored results."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def stored_result(name: str) -> dict[str, Any]:
    """One stored result; for an unknown name, a ValueError that lists those that exist."""
    path = _FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no stored result {name!r}; there are {', '.join(stored_results()) or 'none'}")
    return json.loads(path.read_text(encoding="utf-8"))
