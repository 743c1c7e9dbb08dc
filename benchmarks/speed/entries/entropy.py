"""Entropy matching loss, 16x3x128x128, forward and backward: moments in cells against a Gaussian per pixel and bin."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.timing import Contender, Entry
from srbook.losses import entropy_matching_loss

SHAPE = (16, 3, 128, 128)
BINS, SIGMA, EPS = 256, 0.01, 1e-10
STATUS = Path("/proc/self/status")


def entry() -> Entry:
    sr, hr = images(SHAPE)
    loss, gradient = evaluate(entropy_matching_loss, sr, hr)
    plain_loss, plain_gradient = evaluate(plain, sr, hr)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient, plain_gradient, rtol=0, atol=1e-4 * plain_gradient.abs().max().item())
    return Entry(
        f"{'x'.join(map(str, SHAPE))} float32, {BINS} bins, sigma {SIGMA}, one thread",
        [
            Contender(
                "srbook entropy_matching_loss",
                lambda: evaluate(entropy_matching_loss, sr, hr),
                peak_of("entropy_matching_loss"),
            ),
            Contender(
                "pixels by bins",
                lambda: evaluate(plain, sr, hr),
                f"the formula written out; {peak_of('plain')}",
            ),
        ],
    )


def plain(sr: Tensor, hr: Tensor) -> Tensor:
    q, p = (plain_histogram(image) for image in (sr, hr))
    return (p * ((p + EPS) / (q + EPS)).log()).sum(dim=-1).mean()


def plain_histogram(image: Tensor) -> Tensor:
    centers = torch.linspace(0, 1, BINS)
    weights = torch.exp(-((image.flatten(2)[..., None] - centers) ** 2) / (2 * SIGMA**2)).sum(dim=2)
    return weights / weights.sum(dim=-1, keepdim=True)


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(shape, generator=generator) for _ in range(2))
    return sr.requires_grad_(), hr**2


def evaluate(loss: Callable[[Tensor, Tensor], Tensor], sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(sr, hr)
    (gradient,) = torch.autograd.grad(value, sr)
    return value.detach(), gradient


def peak_of(name: str) -> str:
    """What a fresh process needs for one evaluation, beyond what a tiny one needs."""
    if not STATUS.is_file():
        return "peak memory is measured on Linux only"
    command = f"from {__name__} import print_peak; print_peak({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    return f"peak memory {float(done.stdout):.0f} MB"


def print_peak(name: str) -> None:
    torch.set_num_threads(1)
    evaluate(globals()[name], *images((1, 3, 8, 8)))  # libraries and kept tables
    inputs = images(SHAPE)
    before = high_water()
    evaluate(globals()[name], *inputs)
    print((high_water() - before) / 1e3)


def high_water() -> int:
    """The most memory this process ever held, in kB."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
