"""VQ-GAN: an autoencoder with a codebook, trained by pixels, features, and a discriminator if wanted."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss, pad

from srbook.accel import accelerate
from srbook.arguments import require_choice, require_integer, require_numbers
from srbook.codecs.base import save_codec
from srbook.images import clip, require_floats, require_maps, require_own, require_same_shape
from srbook.losses.adversarial import adaptive_weight, hinge_loss
from srbook.metrics import lpips
from srbook.networks.discriminator import PatchDiscriminator
from srbook.networks.vqgan import VQAutoencoder, as_positions, straight_through
from srbook.noting import noting
from srbook.numbers import at_least_single
from srbook.random import require_generator
from srbook.samplers import SampleResult
from srbook.turns import Turn

Perceptual = Literal["alex", "vgg", "squeeze", "none"]
Weighting = Literal["corrected", "published"]
SLOWEST = 0.01  # share of a batch in the running deviation
TINY = 1e-12


@dataclass(frozen=True)
class Adversary:
    """When and how much a discriminator takes part; the defaults are latent diffusion's.

    A negative weight or number of steps is a ValueError.

    Attributes:
        weight: of what it tells the autoencoder, once the gradients are balanced.
        start: the step at which it begins to learn.
        warmup: how many steps later the autoencoder begins to listen.
        width: of `srbook.networks.discriminator.PatchDiscriminator`.
        layers: likewise.
    """

    weight: float = 0.75
    start: int = 0
    warmup: int = 0
    width: int = 64
    layers: int = 3

    def __post_init__(self) -> None:
        _require_weights(weight=self.weight)
        for name in ("start", "warmup"):
            require_integer(f"the adversary's {name}", getattr(self, name), 0)


class VQGAN(nn.Module):
    """A codec (Esser et al., 2021; Rombach et al., 2022) that `srbook.spaces.Latent` takes and the trainer trains.

    The autoencoder minimizes

        mean |x - x'| + perceptual_weight * LPIPS(x, x') + codebook_loss(z, codes) - w mean(D(x')),

    x and x' in [-1, 1], where w is the adversary's weight times a factor that balances the gradients at the decoder's
    last layer (`srbook.losses.adversarial.adaptive_weight`). Without an adversary there is one turn, otherwise the
    discriminator D has the second.

    A code that was not the nearest to any position for `patience` steps is dead; early in training, when latents move
    fast, for a tenth of the steps so far. It becomes the latent of a position of the batch, drawn by the squared
    distance from its code, so that what is rare gets codes, too. The first batch fills a fresh codebook.

    Its latent has unit deviation: `encode` divides by `deviation`, which training measures and stores.

    As a method its magnification is 1, and `upscale` gives the reconstruction.

    Args:
        network: arguments of `srbook.networks.vqgan.VQAutoencoder`.
        perceptual: which network's LPIPS, or "none". `srbook.backbones` says where their weights come from.
        perceptual_weight: of the perceptual distance.
        beta, weighting: as in `codebook_loss`.
        patience: steps.
        adversary: what `Adversary` takes, or None for no discriminator.

    Attributes:
        arguments: the constructor's arguments, defaults included, which rebuild the codec from its file.
        channels: of the latent.
        factor: image pixels per position and axis.
        perceptual_distance: a function of two images (N, 3, H, W) in [0, 1] to distances (N,). It may be replaced by
            any other.
        deviation: of the network's latent over positions and channels; 1 until it is trained.
        idle: for each code the steps since it was last used.
        trained: steps.

    Raises:
        ValueError: an argument out of range.
    """

    kind: ClassVar[str] = "vqgan"
    scale: ClassVar[int] = 1
    samples: ClassVar[bool] = False

    @noting
    def __init__(
        self,
        *,
        network: dict[str, Any],
        perceptual: Perceptual = "alex",
        perceptual_weight: float = 1.0,
        beta: float = 0.25,
        weighting: Weighting = "corrected",
        patience: int = 100,
        adversary: dict[str, Any] | None = None,
    ):
        require_integer("patience", patience, 1)
        _require_weights(perceptual_weight=perceptual_weight, beta=beta)
        super().__init__()
        self.stage = "main"
        self.perceptual_distance: Callable[[Tensor, Tensor], Tensor] | None = None
        if perceptual != "none":
            self.perceptual_distance = partial(_lpips, net=perceptual)
        self.network = VQAutoencoder(**network)
        self.channels, self.factor = self.network.channels, self.network.factor
        self.adversary: Adversary | None = None
        self.discriminator: PatchDiscriminator | None = None
        if adversary is not None:
            self.adversary = Adversary(**adversary)
            self.discriminator = PatchDiscriminator(self.adversary.width, self.adversary.layers)
        codes = len(self.network.codebook.weight)
        # Floats, as everything else in a file of weights.
        self.register_buffer("idle", torch.zeros(codes))
        self.register_buffer("deviation", torch.tensor(1.0))
        self.register_buffer("trained", torch.tensor(0.0))

    @classmethod
    def stage_names(cls) -> tuple[str, ...]:
        """Training has one stage."""
        return ("main",)

    def begin(self, stage: str) -> None:
        """Enter the stage "main", in which all weights are trained; there is no other."""
        if stage not in self.stage_names():
            raise ValueError(f"{self.kind} has the stages {', '.join(self.stage_names())}, got {stage!r}")
        self.requires_grad_(True)

    def turns(self) -> list[Turn]:
        """The autoencoder's, and the discriminator's if there is one."""
        if self.discriminator is None:
            return [Turn("main", [self.network], self.loss)]
        return [
            Turn("autoencoder", [self.network], self.loss),
            Turn("discriminator", [self.discriminator], self.discriminator_loss),
        ]

    def save(self, path: str | Path) -> Path:
        """Write it to one safetensors file, which `srbook.load` and `srbook.codecs.read_codec` read."""
        return save_codec(path, self, self.kind, self.arguments)

    # The codec

    def encode(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the latent (N, channels, H / factor, W / factor) of unit deviation, not quantized.

        Sides that the factor does not divide are a ValueError.
        """
        return self.network.encode(2 * require_floats(image, "image") - 1) / self.deviation

    def decode(self, x: Tensor) -> Tensor:
        """A latent to the image (N, 3, H, W), not clipped, by the nearest codes; gradients pass straight through."""
        z = require_maps(x, self.channels, "x") * self.deviation
        return (self.network.decode(self._quantize(z)) + 1) / 2

    def _quantize(self, z: Tensor) -> Tensor:
        with _exact(z):
            return self.network.quantize(at_least_single(z))

    @torch.no_grad()
    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """The reconstruction of images (N, 3, H, W) in [0, 1] of any size; `steps` other than 1 are a ValueError.

        It shows what the codec costs, and is the best that a diffusion in its latent can reach.
        """
        require_own(self, lr, "lr")
        require_generator(generator)
        if steps is not None:
            require_integer("steps", steps, 1)
        if steps not in (None, 1):
            raise ValueError(f"{self.kind} reconstructs in one step, got steps={steps}; leave steps out")
        accelerate(self, lr.device)
        height, width = lr.shape[-2:]
        more = (0, -width % self.factor, 0, -height % self.factor)
        image = self.decode(self.encode(pad(lr, more, mode="replicate")))[..., :height, :width]
        return SampleResult(image=clip(image.float()), nfe=1)

    # Its training

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The autoencoder's losses for images `hr` (N, 3, H, W) in [0, 1]: scalars by name, "loss" is their sum.

        In training mode it also measures the deviation, replaces dead codes, and counts those that are used: "used" is
        the share that was within the last `patience` steps. `lr` plays no part.
        """
        require_generator(generator)
        network, image = self.network, 2 * require_own(self, hr, "hr") - 1
        z = at_least_single(network.encode(image))
        with _exact(z):
            nearest = network.codebook.nearest(z)
        codes = network.codebook(nearest)
        if self.training:
            self._measure(z.detach())
            self._count(nearest)
            self._replace_dead_codes(z.detach(), codes.detach(), generator)
        found = at_least_single(network.decode(straight_through(z, codes)))
        figures = {"l1": l1_loss(found, image), "codebook": codebook_loss(z, codes, self.beta, self.weighting)}
        distance = figures["l1"]
        if self.perceptual_distance is not None:
            # clipped: what lies outside is L1's business
            figures["perceptual"] = self.perceptual_distance(clip((found + 1) / 2), hr).mean()
            distance = distance + self.perceptual_weight * figures["perceptual"]
        loss = distance + figures["codebook"]
        if self.discriminator is not None and self.trained > self.adversary.start + self.adversary.warmup:
            figures["adversarial"] = -at_least_single(self.discriminator(found)).mean()
            balance = adaptive_weight(distance, figures["adversarial"], network.last)
            loss = loss + self.adversary.weight * balance * figures["adversarial"]
        return {"loss": loss, **figures, "used": (self.idle < self.patience).float().mean()}

    def discriminator_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The hinge loss of telling `hr` from its reconstruction; 0 before the discriminator starts."""
        if self.trained <= self.adversary.start:
            return {"loss": sum(0 * weight.sum() for weight in self.discriminator.parameters())}
        image = 2 * hr - 1
        with torch.no_grad():
            made = self.network.decode(self._quantize(self.network.encode(image)))
        return {"loss": hinge_loss(self.discriminator(image), self.discriminator(made))}

    @torch.no_grad()
    def _measure(self, z: Tensor) -> None:
        self.trained += 1
        self.deviation.lerp_(z.std(), torch.clamp(1 / self.trained, min=SLOWEST))

    @torch.no_grad()
    def _count(self, nearest: Tensor) -> None:
        used = torch.bincount(nearest.flatten(), minlength=len(self.idle)) > 0
        self.idle.add_(1).masked_fill_(used, 0)
        if _several_processes():
            dist.all_reduce(self.idle, op=dist.ReduceOp.MIN)  # a code that one process uses is not dead

    @torch.no_grad()
    def _replace_dead_codes(self, z: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        weight, far = self.network.codebook.weight, (z - codes).square().sum(dim=1).flatten()
        far = far.nan_to_num(0, 0, 0).clamp(min=TINY)  # for a batch without a distance, or with one that is no number
        source = far.device if generator is None else generator.device
        drawn = torch.multinomial(far.to(source), len(weight), replacement=True, generator=generator).to(far.device)
        dead = self.idle >= torch.clamp(self.trained / 10, max=self.patience)
        weight.copy_(torch.where(dead[:, None], as_positions(z)[drawn].to(weight), weight))
        self.idle.masked_fill_(dead, 0)
        if _several_processes():
            dist.broadcast(weight, src=0)  # they drew from other latents


def _several_processes() -> bool:
    """Whether this is one of the processes of a data-parallel training."""
    return dist.is_available() and dist.is_initialized()


def _exact(z: Tensor) -> torch.autocast:
    """A context for the search of codes: in half precision many would be equally near."""
    return torch.autocast(z.device.type, enabled=False)


def _lpips(found: Tensor, wanted: Tensor, net: Literal["alex", "vgg", "squeeze"]) -> Tensor:
    try:
        return lpips(found, wanted, net=net)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or train by pixels alone, with perceptual: none") from error


def _require_weights(**values: float) -> None:
    require_numbers(**values)
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {value}")


def codebook_loss(z: Tensor, codes: Tensor, beta: float, weighting: Weighting = "corrected") -> Tensor:
    """What moves codes to the latents that they stand for, and latents to their codes.

    "corrected", VQ-VAE's (van den Oord et al., 2017): |sg(z) - codes|^2 + beta |z - sg(codes)|^2, the mean over all
    values, where sg stops the gradient. "published" has beta at the other term, as in the program of latent diffusion
    (`legacy` in ldm/modules/vqvae/quantize.py). Both have one value, (1 + beta) |z - codes|^2, and different gradients.

    Args:
        z: the latent.
        codes: the nearest codes, shaped like z.
        beta: of 0.25, the slower of the two moves at a quarter of the speed.

    Raises:
        ValueError, TypeError: an argument out of range, or another shape.
    """
    require_same_shape(z, codes, ("z", "codes"))
    require_choice("weighting", weighting, Weighting)
    _require_weights(beta=beta)
    moves_codes, moves_z = mse_loss(z.detach(), codes), mse_loss(z, codes.detach())
    if weighting == "published":
        return moves_z + beta * moves_codes
    return moves_codes + beta * moves_z
