"""Networks, without diffusion logic inside. `build_network` makes one from a preset's description.

A file is imported when something in it is asked for.
"""

from typing import TYPE_CHECKING, Any

from torch import nn

from srbook.lazy import Classes, lazily

if TYPE_CHECKING:
    from srbook.networks.attention_predictor import AttentionPredictor
    from srbook.networks.blocks import ResidualBlock, SelfAttention
    from srbook.networks.discriminator import PatchDiscriminator
    from srbook.networks.ecdp import GuidedBlock, GuidedUNet
    from srbook.networks.invertible import Coupling, FrequencyExtractor, InvertibleNetwork
    from srbook.networks.irsde import LinearAttention, LinearUNet, NAFBlock, NAFNet
    from srbook.networks.linear import LinearUpscaler, least_squares_upscaler
    from srbook.networks.predictor import ResidualPredictor
    from srbook.networks.resdiff import FrequencySplitter, HighFrequencyAttention, ResDiffUNet, gaussian_filter
    from srbook.networks.rrdb import RRDB, DenseBlock, RRDBDecoder, RRDBEncoder, RRDBNet
    from srbook.networks.srcnn import SRCNN
    from srbook.networks.srdiff import MishBlock, SRDiffUNet
    from srbook.networks.swin import SwinBlock, SwinLayer, WindowAttention
    from srbook.networks.swin_unet import ModulatedBlock, SwinUNet
    from srbook.networks.time import TimeEmbedding, sinusoidal_embedding
    from srbook.networks.unet import UNet
    from srbook.networks.vqgan import Codebook, VQAutoencoder

NETWORKS: Classes = Classes(
    predictor="srbook.networks.predictor:ResidualPredictor",
    rrdb="srbook.networks.rrdb:RRDBNet",
    srcnn="srbook.networks.srcnn:SRCNN",
)
__getattr__, __dir__ = lazily(
    __name__,
    {
        "attention_predictor": ["AttentionPredictor"],
        "blocks": ["ResidualBlock", "SelfAttention"],
        "discriminator": ["PatchDiscriminator"],
        "ecdp": ["GuidedBlock", "GuidedUNet"],
        "invertible": ["Coupling", "FrequencyExtractor", "InvertibleNetwork"],
        "irsde": ["LinearAttention", "LinearUNet", "NAFBlock", "NAFNet"],
        "linear": ["LinearUpscaler", "least_squares_upscaler"],
        "predictor": ["ResidualPredictor"],
        "resdiff": ["FrequencySplitter", "HighFrequencyAttention", "ResDiffUNet", "gaussian_filter"],
        "rrdb": ["RRDB", "DenseBlock", "RRDBDecoder", "RRDBEncoder", "RRDBNet"],
        "srcnn": ["SRCNN"],
        "srdiff": ["MishBlock", "SRDiffUNet"],
        "swin": ["SwinBlock", "SwinLayer", "WindowAttention"],
        "swin_unet": ["ModulatedBlock", "SwinUNet"],
        "time": ["TimeEmbedding", "sinusoidal_embedding"],
        "unet": ["UNet"],
        "vqgan": ["Codebook", "VQAutoencoder"],
    },
)

__all__ = [
    "NETWORKS",
    "RRDB",
    "SRCNN",
    "AttentionPredictor",
    "Codebook",
    "Coupling",
    "DenseBlock",
    "FrequencyExtractor",
    "FrequencySplitter",
    "GuidedBlock",
    "GuidedUNet",
    "HighFrequencyAttention",
    "InvertibleNetwork",
    "LinearAttention",
    "LinearUNet",
    "LinearUpscaler",
    "MishBlock",
    "ModulatedBlock",
    "NAFBlock",
    "NAFNet",
    "PatchDiscriminator",
    "RRDBDecoder",
    "RRDBEncoder",
    "RRDBNet",
    "ResDiffUNet",
    "ResidualBlock",
    "ResidualPredictor",
    "SRDiffUNet",
    "SelfAttention",
    "SwinBlock",
    "SwinLayer",
    "SwinUNet",
    "TimeEmbedding",
    "UNet",
    "VQAutoencoder",
    "WindowAttention",
    "build_network",
    "gaussian_filter",
    "least_squares_upscaler",
    "sinusoidal_embedding",
]


def build_network(scale: int, kind: str, **arguments: Any) -> nn.Module:
    """A network with fresh weights: `build_network(4, "rrdb", width=32, growth=16, blocks=4)`.

    `kind` is a key of `NETWORKS`, and `arguments` are the constructor's. An unknown kind or argument is a ValueError.
    """
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise ValueError(f"unknown network {kind!r}; choose from {', '.join(sorted(NETWORKS))}")
    try:
        return NETWORKS[kind](scale, **arguments)
    except TypeError as error:
        raise ValueError(f"network {kind!r} does not take these arguments: {error}") from error
