"""Sampling in 15 steps by ResShift's x4 network, latent 64x64, against the published network written plainly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks.speed.plain_swin import PlainSwinUNet, largest_difference, wake
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory
from srbook.networks import SwinUNet
from srbook.paths import ResidualShift, broadcast
from srbook.samplers import ancestral
from srbook.schedules import resshift_sqrt_etas

BATCH, SIDE, STEPS = 1, 64, 15


def entry() -> Entry:
    torch.manual_seed(0)
    net = wake(SwinUNet(as_released=True)).eval()
    anchor, noise, lr = (torch.randn(BATCH, 3, SIDE, SIDE) for _ in range(3))
    plain = PlainSwinUNet(net).eval()
    accelerate(net.to(memory_format=torch.channels_last), "cpu")
    difference = largest_difference(net, plain, noise, torch.full((BATCH,), 7.0), lr)
    contenders = [
        Contender(
            "srbook",
            sampling(net, anchor, noise, lr),
            "channels last, layers swapped, freed memory kept: as srbook upscale",
            within=keep_freed_memory,
        ),
        Contender(
            "plain",
            sampling(plain, anchor, noise, lr),
            f"contiguous; same weights, outputs differ by {difference:.0e} of the largest",
        ),
    ]
    if has_fast_bf16(torch.device("cpu")):
        run = sampling(net, anchor, noise, lr)
        contenders.append(Contender("srbook, bfloat16", run, "the same under autocast", within=in_bfloat16))
    setting = f"118.6 M weights, latent {SIDE}x{SIDE}, batch {BATCH}, {STEPS} steps without the codec, float32"
    return Entry(setting, contenders)


@contextmanager
def in_bfloat16() -> Iterator[None]:
    """As `srbook upscale`: one context for all steps, which rounds each weight once."""
    with keep_freed_memory(), torch.autocast("cpu", torch.bfloat16):
        yield


def sampling(net: nn.Module, anchor: Tensor, noise: Tensor, lr: Tensor) -> Callable[[], Tensor]:
    """All steps of the first version's path, from `noise` (N, 3, H, W) to the latent."""
    path = ResidualShift(resshift_sqrt_etas(STEPS, power=0.3, kappa=2.0, min_noise_level=0.04), kappa=2.0)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        spread = (1 + (path.sigma * path.level(t)).square()).sqrt()
        return net(x / broadcast(spread, x), t - 1, lr).float()

    @torch.no_grad()
    def run() -> Tensor:
        generator = torch.Generator().manual_seed(1)
        start = path.start(anchor, noise)
        return ancestral(path, denoise, start, anchor, path.times(STEPS), generator=generator).image

    return run
