"""The methods, one file per paper. A file is imported when something in it is asked for."""

from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srbook.methods.base import Method, Stage
    from srbook.methods.bicubic import Bicubic
    from srbook.methods.ddpm import DDPM
    from srbook.methods.diffusion import Condition, Diffusion
    from srbook.methods.ecdp import ECDP
    from srbook.methods.esrdf import ESRDF
    from srbook.methods.regression import Regression
    from srbook.methods.resdiff import ResDiff
    from srbook.methods.sr3 import SR3
    from srbook.methods.srdiff import SRDiff


class _Classes(UserDict[str, type["Method"]]):
    """Imports a class when it is asked for; values are given as "module:Class"."""

    def __getitem__(self, kind: str) -> type["Method"]:
        home = super().__getitem__(kind)
        if isinstance(home, str):
            module, name = home.split(":")
            return getattr(import_module(module), name)
        return home


# Classes of methods by their `kind`, which presets and files name.
METHODS = _Classes(
    bicubic="srbook.methods.bicubic:Bicubic",
    regression="srbook.methods.regression:Regression",
    ddpm="srbook.methods.ddpm:DDPM",
    sr3="srbook.methods.sr3:SR3",
    srdiff="srbook.methods.srdiff:SRDiff",
    resdiff="srbook.methods.resdiff:ResDiff",
    esrdf="srbook.methods.esrdf:ESRDF",
    ecdp="srbook.methods.ecdp:ECDP",
)
_HOME = dict(reversed(home.split(":")) for home in METHODS.data.values()) | {
    "Condition": "srbook.methods.diffusion",
    "Diffusion": "srbook.methods.diffusion",
    "Method": "srbook.methods.base",
    "Stage": "srbook.methods.base",
}

__all__ = [
    "DDPM",
    "ECDP",
    "ESRDF",
    "METHODS",
    "SR3",
    "Bicubic",
    "Condition",
    "Diffusion",
    "Method",
    "Regression",
    "ResDiff",
    "SRDiff",
    "Stage",
]


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srbook.methods' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
