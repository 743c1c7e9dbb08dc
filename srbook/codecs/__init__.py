"""What is trained and is no super-resolution method: autoencoders whose latents a diffusion works in, and features."""

from typing import TYPE_CHECKING

from srbook.codecs.base import CODECS, read_codec
from srbook.lazy import lazily

if TYPE_CHECKING:
    from srbook.codecs.extractor import Extractor
    from srbook.codecs.vqgan import VQGAN

__getattr__, __dir__ = lazily(__name__, {"extractor": ["Extractor"], "vqgan": ["VQGAN", "codebook_loss"]})

__all__ = ["CODECS", "VQGAN", "Extractor", "codebook_loss", "read_codec"]
