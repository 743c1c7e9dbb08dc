"""Import torchvision where its compiled operators do not fit the installed torch.

A wheel of torchvision built for CUDA beside a CPU-only torch fails while it is imported:

    RuntimeError: operator torchvision::nms does not exist

Its models and transforms need none of those operators. `import_torchvision()` makes the import succeed.
Code that meets the error elsewhere can call it once before its own `import torchvision` (or `import lpips`).
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType

import torch

from srbook.parts import missing

_SYMPTOM = "operator torchvision::nms does not exist"
_HELP = (
    "torchvision's compiled operators do not fit this torch (a torchvision built for CUDA beside a "
    "CPU-only torch is the usual cause)"
)
_SCHEMAS: list[torch.library.Library] = []  # a Library takes its operators with it when it is collected


def import_torchvision() -> ModuleType:
    """Import and return torchvision, declaring two missing operators if, and only if, the import needs it.

    With the declarations in place, models, weights, and transforms work, forward and backward. Calling
    `torchvision.ops.nms` still fails, because a declaration has no kernel behind it. A `UserWarning` says so.

    Raises:
        ImportError: torchvision is not installed, or cannot be imported even with the declarations.
        RuntimeError: torchvision's own error, if it is not the missing operator.
    """
    try:
        return _import()
    except RuntimeError as error:
        # Declaring the operators beside a working torchvision ends the process, so only this message counts.
        if _SYMPTOM not in str(error):
            raise
    _forget_half_imported()
    _declare_operators()
    try:
        torchvision = _import()
    except RuntimeError as error:
        raise ImportError(f"{_HELP}; install matching builds of torch and torchvision ({error})") from error
    warnings.warn(
        f"{_HELP}. Models and transforms work; torchvision.ops.nms does not. "
        "To repair the installation, install torch and torchvision as builds of the same kind.",
        stacklevel=2,
    )
    return torchvision


def _import() -> ModuleType:
    try:
        return import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise missing("torchvision") from error


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _SCHEMAS.append(library)
