"""What several commands ask for on the command line: a device, and a collection of images."""

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from srbook.methods import Upscaler


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def choose_device(choice: Device) -> "torch.device":
    """The device of that name; "auto" is the GPU where torch sees one. A GPU that is not there is a ValueError."""
    import torch

    visible = torch.cuda.is_available()
    if choice is Device.cuda and not visible:
        raise ValueError("--device cuda: torch sees no GPU (srbook doctor says why); use --device cpu or auto")
    return torch.device("cuda" if visible and choice is not Device.cpu else "cpu")


def load_upscaler(name: str) -> "Upscaler":
    """`srbook.load` of what can enlarge pictures, with its errors; a ValueError for a trained part that cannot."""
    import srbook
    from srbook.methods.base import Upscaler

    method = srbook.load(name)
    if not isinstance(method, Upscaler):
        raise ValueError(f"{name}: an {method.kind} does not upscale; srbook train uses it as a part of a method")
    return method
