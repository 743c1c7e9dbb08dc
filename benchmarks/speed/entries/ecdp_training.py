"""One training step of ECDP at paper width, 128x128, against the published algorithm written plainly."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import srbook
from benchmarks.speed.plain_ecdp import PlainECDP, wake
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory
from srbook.training.optim import FusedAdamW

BATCH, SIDE = 2, 128


def entry() -> Entry:
    torch.manual_seed(0)
    method = wake(srbook.build("ecdp-div2k"))
    method.begin("diffusion")
    plain = PlainECDP(method)
    accelerate(method.to(memory_format=torch.channels_last), "cpu")
    hr, lr = torch.rand(BATCH, 3, SIDE, SIDE), torch.rand(BATCH, 3, SIDE // 4, SIDE // 4)
    t, noise = torch.rand(BATCH), torch.randn(BATCH, 3, SIDE, SIDE)

    def ours() -> Tensor:
        return method.losses(hr, method.condition(lr), t, noise)["loss"]

    def theirs() -> Tensor:
        return plain.loss(hr, lr, t, noise)

    with torch.no_grad():
        difference = float((ours() - theirs()).abs() / theirs())
    if difference > 1e-5:
        raise AssertionError(f"the contenders compute different losses: {difference:.2g}")
    as_trained = "channels last, fused Adam, layers swapped, freed memory kept: as srbook train"
    contenders = [
        Contender("srbook", step(ours, fused(method)), as_trained, within=keep_freed_memory),
        Contender(
            "as published, default Adam",
            step(theirs, torch.optim.Adam(trained(plain), 1e-4)),
            f"features resized and projected in every block; same weights, losses equal to {difference:.0e}",
        ),
    ]
    if has_fast_bf16(torch.device("cpu")):
        run = step(ours, fused(method), torch.bfloat16)
        contenders.append(Contender("srbook, bfloat16", run, "the same under autocast", within=keep_freed_memory))
    return Entry(f"42.6 M weights with the encoder's, {SIDE}x{SIDE}, batch {BATCH}, both heads, float32", contenders)


def fused(module: nn.Module) -> FusedAdamW:
    return FusedAdamW([{"params": list(trained(module))}], lr=1e-4, weight_decay=0)


def trained(module: nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.requires_grad]


def step(
    loss: Callable[[], Tensor], optimizer: FusedAdamW | torch.optim.Optimizer, dtype: torch.dtype = torch.float32
) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = loss()
        value.backward()
        optimizer.step()

    return run
