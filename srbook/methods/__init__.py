"""The methods, one file per paper."""

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

METHODS: dict[str, type[Method]] = {
    method.kind: method for method in (Bicubic, Regression, DDPM, SR3, SRDiff, ResDiff, ESRDF, ECDP)
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
