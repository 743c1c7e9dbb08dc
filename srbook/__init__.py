"""srbook: diffusion super-resolution, the package beside the book.

Images are float32 RGB tensors of shape (N, 3, H, W) with values in [0, 1].

    >>> import srbook
    >>> method = srbook.load("rrdb-small")          # trained weights that ship with the package
    >>> result = method.upscale(low_resolution)     # result.image is (N, 3, 4H, 4W)

Start with `srbook.presets()`, `srbook.build(preset)` and `srbook.load(name_or_checkpoint)`.
"""

from typing import TYPE_CHECKING

from srbook.lazy import lazily

__version__ = "0.1.0"

if TYPE_CHECKING:
    from srbook.registry import build, load, presets

__getattr__, __dir__ = lazily(__name__, {"registry": ["build", "load", "presets"]})

__all__ = ["__version__", "build", "load", "presets"]
