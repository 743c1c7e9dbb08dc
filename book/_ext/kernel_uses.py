"""What a notebook uses of srbook: its modules, the data files that it opened, and the folders that it listed.

Runs inside the notebook's kernel. The programs that execute notebooks send `WATCH` before the first cell, and ask for
`USED` afterwards. What a child process opens is not seen.
"""

import json
import os
import sys
from typing import Any

# One expression each, so that nothing is left among the notebook's variables.
_HERE = os.path.dirname(os.path.abspath(__file__))
WATCH = f"__import__('sys').path.append({_HERE!r}) or __import__('kernel_uses').watch()"
USED = "__import__('kernel_uses').used()"

_seen: set[str] = set()


def watch() -> None:
    """Note from now on what is opened and listed."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes | os.PathLike):
        _seen.add(os.path.realpath(os.fsdecode(arguments[0])))


def used() -> str:
    """JSON: the folder that holds the package, "" where it was not imported, and the paths in it that were used."""
    modules = {name: module for name, module in list(sys.modules.items()) if name.split(".")[0] == "srbook"}
    if not modules:
        return json.dumps({"root": "", "paths": []})
    root = os.path.dirname(os.path.dirname(os.path.realpath(modules["srbook"].__file__)))
    files = {os.path.realpath(module.__file__) for module in modules.values()} | _seen
    paths = [os.path.relpath(path, root).replace(os.sep, "/") for path in files]
    return json.dumps({"root": root, "paths": sorted(path for path in paths if _counts(path))})


def _counts(path: str) -> bool:
    return path.split("/")[0] == "srbook" and "__pycache__" not in path
