"""One reverse step of SR3 at paper width, 128x128, against the same network written plainly."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.speed.plain_unet import PlainUNet
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory
from srbook.networks import UNet
from srbook.paths import DiscreteVP
from srbook.samplers import ancestral
from srbook.schedules import linear_betas

BATCH, STEP = 8, 1000


def entry() -> Entry:
    torch.manual_seed(0)
    net = UNet().eval()
    lr, x = torch.rand(BATCH, 3, 128, 128), torch.randn(BATCH, 3, 128, 128)
    other = PlainUNet(net).eval()
    accelerate(net.to(memory_format=torch.channels_last), "cpu")
    known = outputs(other)
    difference = float((outputs(net) - known).abs().max())
    if difference > 1e-4:
        raise AssertionError(f"the contenders compute different things: {difference:.2g}")
    contenders = [
        Contender(
            "srbook",
            reverse_step(net, lr, x),
            "channels last, layers swapped, freed memory kept: as srbook upscale",
            within=keep_freed_memory,
        ),
        Contender("plain", reverse_step(other, lr, x), f"contiguous; same weights, outputs equal to {difference:.0e}"),
    ]
    if has_fast_bf16(torch.device("cpu")):
        apart = float((outputs(net, torch.bfloat16) - known).abs().max())
        note = f"autocast, channels last; outputs, up to {known.abs().max():.1f}, differ by up to {apart:.2f}"
        run = reverse_step(net, lr, x, torch.bfloat16)
        contenders.append(Contender("srbook, bfloat16", run, note, within=keep_freed_memory))
    return Entry(f"97.8 M weights, 128x128, batch {BATCH}, one evaluation and the step, float32", contenders)


def reverse_step(net: nn.Module, lr: Tensor, x: Tensor, dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    """The step that leaves time STEP. The networks predict noise; the start is that of a sampler."""
    path = DiscreteVP(linear_betas(2000, 1e-6, 1e-2), sigma=0.5)
    anchor = torch.tensor(0.5)
    a, s = float(path.signal(STEP)), float(path.level(STEP))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        z = (x - anchor) / path.sigma
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            noise = net(torch.cat([2 * lr - 1, z], dim=1), torch.full_like(t, a))
        return (anchor + path.sigma * (z - s * noise.float()) / a).clamp(0, 1)

    @torch.no_grad()
    def run() -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return ancestral(path, denoise, x, anchor, [STEP, STEP - 1], generator=generator).image

    return run


@torch.no_grad()
def outputs(net: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """The prediction for one random input."""
    x = torch.randn(1, 6, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        return net(x, torch.tensor([0.5])).float()
