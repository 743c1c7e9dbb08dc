"""The methods, one file per paper. A file is imported when something in it is asked for."""

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

_HOME = {
    "Bicubic": "bicubic",
    "Condition": "diffusion",
    "DDPM": "ddpm",
    "Diffusion": "diffusion",
    "ECDP": "ecdp",
    "ESRDF": "esrdf",
    "Method": "base",
    "Regression": "regression",
    "ResDiff": "resdiff",
    "SR3": "sr3",
    "SRDiff": "srdiff",
    "Stage": "base",
}
# The names of classes by their `kind`, which presets and files name.
METHODS = {
    "bicubic": "Bicubic",
    "ddpm": "DDPM",
    "ecdp": "ECDP",
    "esrdf": "ESRDF",
    "regression": "Regression",
    "resdiff": "ResDiff",
    "sr3": "SR3",
    "srdiff": "SRDiff",
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
    "method_class",
]


def method_class(kind: str) -> type["Method"]:
    """The class of a method.

    Raises:
        ValueError: no method is of that kind; the message lists those that are.
    """
    if kind not in METHODS:
        raise ValueError(f"unknown method {kind!r}; this version of srbook knows {', '.join(sorted(METHODS))}")
    return __getattr__(METHODS[kind])


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(import_module(f"srbook.methods.{_HOME[name]}"), name)
    raise AttributeError(f"module 'srbook.methods' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
