"""Proofs about DeltaDiff: which path its step fixes, the leak, what it costs, and what later steps add."""

import math
from itertools import pairwise

import pytest
import sympy as sp
import torch
from torch import Tensor

import srbook
from srbook.degradations import bicubic_upsample
from srbook.paths import ResidualShift
from srbook.samplers import ancestral
from srbook.schedules import resshift_sqrt_etas


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def path_to(end: float, **reading: str) -> ResidualShift:
    return srbook.build("deltadiff-tiny", end=end, **reading).path


def test_the_step_fixes_the_path():
    """The blends that the step leads to, and why neither the first version's limits nor the recursion fit."""
    path = path_to(0.99)
    etas = path.level(torch.arange(5)).square()
    x0, y = torch.randn(2, 1, 6, generator=generator(), dtype=torch.float64)
    x = x0 + etas[4] * (y - x0)
    for t in (4, 3, 2, 1):
        x = path.posterior(x, x0, y, t, t - 1)[0]
        torch.testing.assert_close(x, x0 + etas[t - 1] * (y - x0))
    b, eta_s, eta_t = sp.symbols("b eta_s eta_t", positive=True)
    after = sp.expand(eta_s / eta_t * b)  # the share of the anchor after the step
    assert sp.solve(sp.Eq(after.subs(b, 1 - eta_t), 1 - eta_s), eta_s) == [eta_t]
    assert sp.solve(sp.Eq(after, eta_t * b), eta_s) == [eta_t**2]
    assert not any(math.isclose(s, t**2, rel_tol=0.05) for s, t in pairwise(etas[1:].tolist()))


def test_any_multiplier_stays_on_the_path():
    """All factors by SymPy; DeltaDiff's and SinSR's as the package has them, for every kappa."""
    k, m, j, x0, y, eta_s, eta_t = sp.symbols("k m j x_0 y eta_s eta_t")
    difference = k * x0 + m * (x0 + eta_t * (y - x0)) + j * y - (x0 + eta_s * (y - x0))
    factors = [sp.diff(difference, symbol) for symbol in (x0, y)]
    solved = sp.solve(factors, [k, j], dict=True)[0]
    assert sp.simplify(solved[k] - (1 - eta_s - m * (1 - eta_t))) == 0
    assert sp.simplify(solved[j] - (eta_s - m * eta_t)) == 0
    assert sp.simplify(solved[j].subs(m, eta_s / eta_t)) == 0
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for kappa in (2.0, 1e-6, 0.0):
        path = ResidualShift(resshift_sqrt_etas(4, min_noise_level=0.1), kappa=kappa)
        ratio = (path.level(2) / path.level(3)).item()
        assert path.posterior(one, zero, zero, 3, 2)[0].item() == pytest.approx(ratio**2)
        assert path.posterior(one, zero, zero, 3, 2, eta=0.0)[0].item() == pytest.approx(ratio)


@pytest.mark.parametrize("end", [0.8, 0.99])
def test_least_squares_finds_the_copy(end: float):
    """The regression of x_0 on state and anchor has no error, and the copy's factors."""
    path = path_to(end)
    x0, y = torch.randn(2, 200, 1, generator=generator(), dtype=torch.float64)
    for t in (1, 3, 4):
        eta = path.level(t).square().item()
        seen = torch.cat([path.perturb(x0, y, t, torch.zeros_like(x0)), y], dim=1)
        factors = torch.linalg.lstsq(seen, x0).solution
        torch.testing.assert_close(seen @ factors, x0)
        expected = torch.tensor([[1 / (1 - eta)], [-eta / (1 - eta)]], dtype=torch.float64)
        torch.testing.assert_close(factors, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("end", "deviation"), [(0.8, 0.05), (0.99, 0.01), (0.99, 0.0), (1.0, 0.02)])
def test_what_is_read_is_what_is_lost(end: float, deviation: float):
    """Regression on draws of one y, against the share read, the error left, and the answer at the anchor."""
    mean, sigma, y, count = 0.3, 0.7, -0.2, 200_000
    x0, error = torch.randn(2, count, generator=generator(), dtype=torch.float64)
    x0, error = mean + sigma * x0, deviation * error
    seen = x0 + end * (y - x0) + error
    leak = ((1 - end) * sigma) ** 2
    share = leak / (leak + deviation**2)
    known = torch.stack([torch.ones_like(seen), seen - y], dim=1)  # so that the first factor is the answer at y
    factors = torch.linalg.lstsq(known, x0[:, None]).solution[:, 0]
    resolved = 5 / math.sqrt(count)
    left = (known @ factors - x0).square().mean().item()
    assert left == pytest.approx((1 - share) * sigma**2, abs=resolved)
    assert factors[0].item() == pytest.approx((1 - share) * mean + share * y, abs=resolved)


@pytest.mark.parametrize(("end", "eta"), [(0.8, 1.0), (0.99, 1.0), (1.0, 1.0), (0.8, 0.0)])
@pytest.mark.parametrize("steps", [2, 4])
def test_later_guesses_repeat_the_first(end: float, eta: float, steps: int):
    """The package's sampler with a copying network: DeltaDiff's multiplier at eta = 1, SinSR's at 0."""
    path, guesses = path_to(end), []
    first, y = torch.randn(2, 1, 5, generator=generator(), dtype=torch.float64)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        share = path.level(t[0]).square()
        guesses.append(first if t[0] == 4 else (x - share * y) / (1 - share))
        return guesses[-1]

    times = path.times(steps)
    image = ancestral(path, denoise, y, y, times, eta=eta).image
    second = path.level(times[1]).square().item()
    multiplier = second / end if eta == 1 else math.sqrt(second / end)
    pulled = first + multiplier * (1 - end) / (1 - second) * (y - first)
    for later in [*guesses[1:], image]:
        torch.testing.assert_close(later, pulled, rtol=0, atol=1e-10)

    jumping, guesses[:] = path_to(end, step="prediction"), []
    image = ancestral(jumping, denoise, y, y, times).image
    factor = math.prod(1 / (1 - path.level(t).square().item()) for t in times[1:-1])
    torch.testing.assert_close(image, y + factor * (first - y), rtol=0, atol=1e-10)


def test_subtraction_saves_a_quarter_of_the_rank():
    x = torch.rand(1, 1, 32, 48, generator=generator(), dtype=torch.float64)
    y = bicubic_upsample(torch.rand(1, 1, 8, 12, generator=generator(1), dtype=torch.float64), 4)
    assert torch.linalg.matrix_rank(y[0, 0]) <= 8
    smooth = torch.linspace(0, 1, 48, dtype=torch.float64).square().expand(1, 1, 32, 48)
    for image in (x, y + 1e-3 * x, smooth + 0.01 * x):
        values, rest = (torch.linalg.svdvals(matrix[0, 0]) for matrix in (image, image - y))
        assert (values[8:] <= rest[:-8] + 1e-12).all()
