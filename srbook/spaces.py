"""Where the path of a method lives: in pixels, in blocks of them, or in the latent of a codec."""

from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from srbook.arguments import require_counts, require_instance
from srbook.images import clip, require_maps
from srbook.numbers import at_least_single


@runtime_checkable
class Space(Protocol):
    """A space that images are brought into and back from.

    Attributes:
        channels: of x.
        factor: image pixels per position of x and axis.
    """

    channels: int
    factor: int

    def encode(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to x (N, channels, H / factor, W / factor)."""

    def decode(self, x: Tensor) -> Tensor:
        """x to the image (N, 3, H, W) in [0, 1]."""


class Pixels:
    """The image itself."""

    channels, factor = 3, 1

    def encode(self, image: Tensor) -> Tensor:
        return image

    def decode(self, x: Tensor) -> Tensor:
        return clip(x)


class Unshuffled:
    """The image itself, but blocks of factor x factor pixels are the channels of one position; values in [-1, 1].

    It has the sides of a codec's latent and loses nothing: what a method can do without a codec. Sides of an image that
    the factor does not divide are a ValueError.
    """

    def __init__(self, factor: int):
        require_counts(factor=factor)
        self.channels, self.factor = 3 * factor**2, factor

    def encode(self, image: Tensor) -> Tensor:
        if any(side % self.factor for side in require_maps(image, 3, "image").shape[-2:]):
            raise ValueError(f"sides must be multiples of {self.factor}, got {tuple(image.shape[-2:])}")
        return 2 * pixel_unshuffle(image, self.factor) - 1

    def decode(self, x: Tensor) -> Tensor:
        return clip((pixel_shuffle(require_maps(x, self.channels, "x"), self.factor) + 1) / 2)


@runtime_checkable
class Codec(Protocol):
    """What `Latent` asks of an autoencoder, such as a VQ-GAN."""

    channels: int
    factor: int

    def encode(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, channels, H / factor, W / factor)."""

    def decode(self, x: Tensor) -> Tensor:
        """The way back, not clipped."""


class Latent:
    """The latent of a codec, the module inside of a `srbook.frozen.Frozen` part that the method keeps."""

    def __init__(self, codec: Codec):
        require_instance("codec", codec, Codec, "a module with encode, decode, channels, and factor")
        self.codec = codec
        self.channels, self.factor = codec.channels, codec.factor

    def encode(self, image: Tensor) -> Tensor:
        return at_least_single(self.codec.encode(image))

    def decode(self, x: Tensor) -> Tensor:
        return clip(at_least_single(self.codec.decode(x)))
