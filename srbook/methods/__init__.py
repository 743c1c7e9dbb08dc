"""The methods, one file per paper. A file is imported when something in it is asked for."""

from typing import TYPE_CHECKING

from srbook.lazy import Classes, lazily

if TYPE_CHECKING:
    from srbook.methods.base import Method, Stage, Upscaler
    from srbook.methods.bicubic import Bicubic
    from srbook.methods.ddpm import DDPM
    from srbook.methods.deltadiff import DeltaDiff
    from srbook.methods.diffusion import Condition, Diffusion
    from srbook.methods.ecdp import ECDP
    from srbook.methods.esrdf import ESRDF
    from srbook.methods.hfdiff import HFDiff
    from srbook.methods.irsde import IRSDE
    from srbook.methods.regression import Regression
    from srbook.methods.resdiff import ResDiff
    from srbook.methods.resshift import ResShift
    from srbook.methods.sinsr import SinSR
    from srbook.methods.sr3 import SR3
    from srbook.methods.srdiff import SRDiff


# Classes of methods by their `kind`, which presets and files name.
METHODS: Classes = Classes(
    bicubic="srbook.methods.bicubic:Bicubic",
    regression="srbook.methods.regression:Regression",
    ddpm="srbook.methods.ddpm:DDPM",
    sr3="srbook.methods.sr3:SR3",
    srdiff="srbook.methods.srdiff:SRDiff",
    resdiff="srbook.methods.resdiff:ResDiff",
    esrdf="srbook.methods.esrdf:ESRDF",
    ecdp="srbook.methods.ecdp:ECDP",
    irsde="srbook.methods.irsde:IRSDE",
    resshift="srbook.methods.resshift:ResShift",
    deltadiff="srbook.methods.deltadiff:DeltaDiff",
    sinsr="srbook.methods.sinsr:SinSR",
    hfdiff="srbook.methods.hfdiff:HFDiff",
)
__getattr__, __dir__ = lazily(
    __name__,
    {
        "base": ["Method", "Stage", "Upscaler"],
        "bicubic": ["Bicubic"],
        "ddpm": ["DDPM"],
        "deltadiff": ["DeltaDiff"],
        "diffusion": ["Condition", "Diffusion"],
        "ecdp": ["ECDP"],
        "esrdf": ["ESRDF"],
        "hfdiff": ["HFDiff"],
        "irsde": ["IRSDE"],
        "regression": ["Regression"],
        "resdiff": ["ResDiff"],
        "resshift": ["ResShift"],
        "sinsr": ["SinSR"],
        "sr3": ["SR3"],
        "srdiff": ["SRDiff"],
    },
)

__all__ = [
    "DDPM",
    "ECDP",
    "ESRDF",
    "IRSDE",
    "METHODS",
    "SR3",
    "Bicubic",
    "Condition",
    "DeltaDiff",
    "Diffusion",
    "HFDiff",
    "Method",
    "Regression",
    "ResDiff",
    "ResShift",
    "SRDiff",
    "SinSR",
    "Stage",
    "Upscaler",
]
