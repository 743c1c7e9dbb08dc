"""Proofs about ResShift: its marginal, its posterior, why the anchor cancels, and what the start costs."""

import math

import pytest
import sympy as sp
import torch
from torch import Tensor

from srbook.paths import DiscreteVP, ResidualShift
from srbook.schedules import linear_betas, resshift_sqrt_etas

EDGES = (torch.arange(4) >= torch.arange(5)[:, None]).double()
RAMP = EDGES.mean(dim=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("steps", "smallest"), [(15, 0.04), (4, 0.2)])
def test_steps_add_up_to_the_marginal(steps: int, smallest: float):
    """The mean of every state by the chain's own steps, and the factors of all noises that went into it."""
    table = resshift_sqrt_etas(steps, min_noise_level=smallest)
    path, etas = ResidualShift(table, kappa=2.0), torch.cat([table.new_zeros(1), table.square()])
    x0, anchor = torch.randn(2, 1, 5, generator=generator(), dtype=torch.float64)
    state, variance = x0, 0.0
    for t in range(1, steps + 1):
        added = etas[t] - etas[t - 1]
        state, variance = state + added * (anchor - x0), variance + 4.0 * added
        mean, std = path.marginal(x0, anchor, t)
        torch.testing.assert_close(mean, state)
        torch.testing.assert_close(std.square(), variance)


def test_bayes_gives_the_posterior():
    """Prior times likelihood, as functions of x_s, divided by the Gaussian of the theorem: a constant."""
    x_s, x_t, x_0, y = sp.symbols("x_s x_t x_0 y", real=True)
    eta_s, more, kappa = sp.symbols("eta_s h kappa", positive=True)
    eta_t = eta_s + more
    shift = y - x_0
    exponent = (x_s - x_0 - eta_s * shift) ** 2 / (2 * kappa**2 * eta_s)
    exponent += (x_t - x_s - more * shift) ** 2 / (2 * kappa**2 * more)
    mean = eta_s / eta_t * x_t + (1 - eta_s / eta_t) * x_0
    variance = kappa**2 * eta_s / eta_t * more
    rest = exponent - (x_s - mean) ** 2 / (2 * variance)
    assert sp.simplify(sp.diff(rest, x_s)) == 0
    assert sp.simplify(sp.diff(exponent, x_s, y)) == 0  # the two forces of the anchor cancel


def test_the_anchor_cancels_only_if_noise_and_shift_grow_alike():
    """Its factor in the package's mean is that of the theorem: zero on ResShift's path, and not on DDPM's."""
    for path, cancels in (
        (ResidualShift(resshift_sqrt_etas(15), kappa=2.0), True),
        (DiscreteVP(linear_betas(1000), sigma=0.5), False),
    ):
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        for t, s in ((2, 1), (10, 9), (12, 4), (15, 1)):
            factor = path.posterior(zero, zero, one, t, s)[0].item()
            ratio = path.transition(t, s) * (path.level(s) / path.level(t)) ** 2
            expected = (1 - path.signal(s)) - ratio * (1 - path.signal(t))
            assert factor == pytest.approx(expected.item(), abs=1e-14)
            assert (abs(factor) < 1e-14) == cancels
    a, b = sp.symbols("a b", positive=True)  # a bridge's, with the VP multiplier: s^2 = a (1 - a)
    assert sp.simplify((1 - b) - a / b * b * (1 - b) / (a * (1 - a)) * (1 - a)) == 0


def beliefs(path: ResidualShift, x: Tensor, t: float) -> Tensor:
    means, spread = path.marginal(EDGES, RAMP, t)
    return torch.softmax(-torch.cdist(x, means).square() / (2 * spread**2), dim=1)


@pytest.mark.parametrize(("kappa", "end"), [(1.0, 0.99), (0.2, 0.9), (0.1, 0.99)])
def test_the_start_costs_at_most_the_bound(kappa: float, end: float):
    """The divergence by drawing from the path's end, and the shares of the edges after an exact walk from the start."""
    path = ResidualShift(resshift_sqrt_etas(15, kappa=1.0, sqrt_eta_end=end), kappa=kappa)
    count = 20_000
    noise = torch.randn(count, 4, generator=generator(1), dtype=torch.float64)
    edge = torch.randint(5, (count,), generator=generator(2))
    x = path.perturb(EDGES[edge], RAMP, 15, noise)
    means, std = path.marginal(EDGES, RAMP, 15)
    log_path = (-torch.cdist(x, means).square() / (2 * std**2)).logsumexp(dim=1) - math.log(5)
    log_start = -(x - RAMP).square().sum(dim=1) / (2 * std**2)
    terms = log_path - log_start
    gap = (EDGES - RAMP).square().sum(dim=1).mean().item()
    bound = (1 - end**2) ** 2 * gap / (2 * kappa**2 * end**2)
    resolved = 4 * terms.std().item() / math.sqrt(count)
    assert terms.mean().item() <= bound + resolved
    shares = beliefs(path, path.start(RAMP.expand(count, 4), noise), 15).mean(dim=0)
    unequal = 0.5 * (shares - 0.2).abs().sum().item()
    assert unequal <= math.sqrt(bound / 2) + 4 / math.sqrt(count)


def test_the_weights_of_the_bound():
    """The divergence of two steps that differ in x_0 alone."""
    path = ResidualShift(resshift_sqrt_etas(15), kappa=2.0)
    etas = resshift_sqrt_etas(15).square()
    x_t, x0, guess, anchor = torch.randn(4, 1, 3, generator=generator(), dtype=torch.float64)
    for t in (2, 7, 15):
        (mean, std), (other, _) = (path.posterior(x_t, x, anchor, t, t - 1) for x in (x0, guess))
        divergence = (mean - other).square().sum() / (2 * std.square())
        weight = (etas[t - 1] - etas[t - 2]) / (2 * 4.0 * etas[t - 1] * etas[t - 2])
        torch.testing.assert_close(divergence, weight * (guess - x0).square().sum())
