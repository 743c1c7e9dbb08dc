"""Packages whose names are imported when they are asked for, so that using one method imports no other."""

import sys
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package with `__all__`; `homes` are its modules with the names they give."""
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return get, lambda: sorted(vars(sys.modules[package])["__all__"])


class Classes(UserDict[str, type]):
    """Classes by a short name, given as "module:Class" and imported when they are asked for."""

    def __getitem__(self, name: str) -> type:
        home = super().__getitem__(name)
        if not isinstance(home, str):
            return home
        module, _, of = home.partition(":")
        return getattr(import_module(module), of)
