"""srbook: diffusion super-resolution, the package beside the book.

Images are float32 RGB tensors of shape (N, 3, H, W) with values in [0, 1].

    >>> import srbook
    >>> method = srbook.load("rrdb-small")          # trained weights that ship with the package
    >>> result = method.upscale(low_resolution)     # result.image is (N, 3, 4H, 4W)

Start with `srbook.presets()`, `srbook.build(preset)` and `srbook.load(name_or_checkpoint)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from srbook.registry import build, load, presets

_HOME = {"build": "srbook.registry", "load": "srbook.registry", "presets": "srbook.registry"}

__all__ = ["__version__", "build", "load", "presets"]


def __getattr__(name: str):
    # Deferred: `import srbook` stays light.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'srbook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
