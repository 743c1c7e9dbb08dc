"""Where the path of a method lives: in pixels, or in the latent of a codec."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from srbook.arguments import require_instance
from srbook.images import clip


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
        return self.codec.encode(image)

    def decode(self, x: Tensor) -> Tensor:
        return clip(self.codec.decode(x).float())
