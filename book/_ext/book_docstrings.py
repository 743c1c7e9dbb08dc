"""What autodoc makes of docstrings: |x| is an absolute value, and texts that Python wrote itself are left out."""

import re

from sphinx.application import Sphinx

_CODE_OR_BAR = re.compile(r"`[^`]*`|\\\||\|")


def escape_bars(line: str) -> str:
    """The line with a backslash before every bar outside backquotes that has none."""
    return _CODE_OR_BAR.sub(lambda match: r"\|" if match[0] == "|" else match[0], line)


def _process(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    lines[:] = [escape_bars(line) for line in lines]


def _skip(_app: Sphinx, _what: str, _name: str, member: object, _skip: bool, _options: object) -> bool | None:
    # A named tuple's fields are described under "Variables"; Python's text for them says nothing.
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
