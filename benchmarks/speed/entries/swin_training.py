"""One training step of ResShift's x4 network, latent 64x64, against the published network written plainly."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.speed.plain_swin import PlainSwinUNet, largest_difference, wake
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory
from srbook.networks import SwinUNet
from srbook.training.optim import FusedAdamW

BATCH, SIDE = 1, 64


def entry() -> Entry:
    torch.manual_seed(0)
    net = wake(SwinUNet(as_released=True))
    x, lr, x0 = (torch.randn(BATCH, 3, SIDE, SIDE) for _ in range(3))
    t = torch.full((BATCH,), 7.0)
    plain = PlainSwinUNet(net)
    accelerate(net.to(memory_format=torch.channels_last), "cpu")
    difference = largest_difference(net, plain, x, t, lr)
    as_trained = "channels last, fused AdamW, layers swapped, freed memory kept: as srbook train"
    contenders = [
        Contender("srbook", step(net, fused(net), x, t, lr, x0), as_trained, within=keep_freed_memory),
        Contender(
            "plain, default AdamW",
            step(plain, torch.optim.AdamW(plain.parameters(), 5e-5, weight_decay=0), x, t, lr, x0),
            f"an ordinary loop; same weights, outputs differ by {difference:.0e} of the largest",
        ),
    ]
    if has_fast_bf16(torch.device("cpu")):
        half = copy.deepcopy(net)
        run = step(half, fused(half), x, t, lr, x0, torch.bfloat16)
        note = "the same under autocast; the weights stay in float32"
        contenders.append(Contender("srbook, bfloat16", run, note, within=keep_freed_memory))
    return Entry(f"118.6 M weights, latent {SIDE}x{SIDE}, batch {BATCH}, squared error of x_0, float32", contenders)


def fused(net: nn.Module) -> FusedAdamW:
    return FusedAdamW([{"params": list(net.parameters())}], lr=5e-5, weight_decay=0)


def step(
    net: nn.Module,
    optimizer: FusedAdamW | torch.optim.Optimizer,
    x: Tensor,
    t: Tensor,
    lr: Tensor,
    x0: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            predicted = net(x, t, lr)
        mse_loss(predicted.float(), x0).backward()
        optimizer.step()

    return run
