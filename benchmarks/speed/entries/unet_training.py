"""One training step of SR3's network at paper width, 128x128, against the same network written plainly."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.speed.plain_unet import PlainUNet
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory
from srbook.networks import UNet
from srbook.training.optim import FusedAdamW

BATCH = 2


def entry() -> Entry:
    torch.manual_seed(0)
    net = UNet()
    x, level, noise = torch.randn(BATCH, 6, 128, 128), torch.rand(BATCH), torch.randn(BATCH, 3, 128, 128)
    plain = PlainUNet(net)
    accelerate(net.to(memory_format=torch.channels_last), "cpu")
    difference = largest_difference(net.eval(), plain.eval(), x, level)
    as_trained = "channels last, fused Adam, layers swapped, freed memory kept: as srbook train"
    contenders = [
        Contender(
            "srbook",
            step(net.train(), adam(net), x, level, noise),
            as_trained,
            within=keep_freed_memory,
        ),
        Contender(
            "plain, default Adam",
            step(plain.train(), torch.optim.Adam(plain.parameters(), 1e-4), x, level, noise),
            f"an ordinary loop; same weights, outputs without dropout equal to {difference:.0e}",
        ),
    ]
    if has_fast_bf16(torch.device("cpu")):
        half = UNet().to(memory_format=torch.channels_last)
        accelerate(half, "cpu")
        run = step(half, adam(half), x, level, noise, torch.bfloat16)
        note = "the same under autocast; the weights stay in float32"
        contenders.append(Contender("srbook, bfloat16", run, note, within=keep_freed_memory))
    return Entry(f"97.8 M weights, 6 channels of 128x128, batch {BATCH}, L1 on the noise, float32", contenders)


def adam(net: nn.Module) -> FusedAdamW:
    return FusedAdamW([{"params": list(net.parameters())}], lr=1e-4, weight_decay=0)


def step(
    net: nn.Module,
    optimizer: FusedAdamW | torch.optim.Optimizer,
    x: Tensor,
    level: Tensor,
    noise: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            predicted = net(x, level)
        (predicted.float() - noise).abs().mean().backward()
        optimizer.step()

    return run


@torch.no_grad()
def largest_difference(net: nn.Module, plain: nn.Module, x: Tensor, level: Tensor) -> float:
    difference = float((net(x, level) - plain(x, level)).abs().max())
    if difference > 1e-4:
        raise AssertionError(f"the contenders compute different things: {difference:.2g}")
    return difference
