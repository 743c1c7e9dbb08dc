"""One evaluation of ECDP's network in sampling, 128x128, against the published algorithm written plainly."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

import srbook
from benchmarks.speed.plain_ecdp import PlainECDP, wake
from benchmarks.speed.timing import Contender, Entry
from srbook.accel import accelerate, has_fast_bf16, keep_freed_memory

BATCH, SIDE = 4, 128


def entry() -> Entry:
    torch.manual_seed(0)
    method = wake(srbook.build("ecdp-div2k")).eval()
    plain = PlainECDP(method).eval()
    accelerate(method, "cpu")
    lr, z = torch.rand(BATCH, 3, SIDE // 4, SIDE // 4), torch.randn(BATCH, 3, SIDE, SIDE)
    t = torch.full((BATCH,), 150.0)
    with torch.no_grad():
        features, context = plain.features(lr), method.condition(lr).context
        known = plain(z, t, features)
        scale = float(known.abs().max())
        difference = float((method.network(z, t, context) - known).abs().max()) / scale
        if difference > 1e-6:
            raise AssertionError(f"the contenders compute different things: {difference:.2g}")

    def ours() -> Tensor:
        return method.network(z, t, context)

    def theirs() -> Tensor:
        return plain(z, t, features)

    contenders = [
        Contender(
            "srbook", evaluation(ours), "layers swapped, freed memory kept: as srbook upscale", within=keep_freed_memory
        ),
        Contender(
            "as published",
            evaluation(theirs),
            f"features resized and projected in every block; outputs differ by {difference:.0e} of the largest",
        ),
    ]
    if has_fast_bf16(torch.device("cpu")):
        last = copy.deepcopy(method).to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            half = last.condition(lr).context

        def rounded() -> Tensor:
            return last.network(z, t, half)

        run = evaluation(rounded, torch.bfloat16)
        apart = float((run().float() - known).abs().max()) / scale
        note = f"autocast, channels last; outputs differ by {apart:.0e} of the largest"
        contenders.append(Contender("srbook, bfloat16", run, note, within=keep_freed_memory))
    return Entry(f"26.0 M weights, {SIDE}x{SIDE}, batch {BATCH}, one evaluation, float32", contenders)


def evaluation(of: Callable[[], Tensor], dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    @torch.no_grad()
    def run() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return of()

    return run
