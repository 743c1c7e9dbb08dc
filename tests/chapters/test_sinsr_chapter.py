"""Proofs about SinSR: steps that keep the marginals, what squared error learns, and what the way back finds."""

import math

import pytest
import sympy as sp
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from srbook.paths import ResidualShift
from srbook.samplers import ancestral, step_coefficients
from srbook.schedules import resshift_sqrt_etas

EDGES = (torch.arange(4) >= torch.arange(5)[:, None]).double()
RAMP = EDGES.mean(dim=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def walk(path: ResidualShift, x: Tensor, eta: float = 0.0, seed: int = 1) -> Tensor:
    """Where a walk with the exact mean of the five edges ends."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        means, spread = path.marginal(EDGES, RAMP, t[0])
        return torch.softmax(-torch.cdist(x, means).square() / (2 * spread**2), dim=1) @ EDGES

    times = path.times(int(path.end))
    return ancestral(path, denoise, x, RAMP.expand_as(x), times, eta=eta, generator=generator(seed)).image


# The step


def test_the_marginals_leave_one_number_free():
    """The conditions are necessary and sufficient, and the three cases are those of the theorem."""
    k, omega, j, x_0, y = sp.symbols("k omega j x_0 y", real=True)
    eta_s, more, zeta, kappa = sp.symbols("eta_s h zeta kappa", positive=True)
    eta_t = eta_s + more
    mean = sp.expand(k * x_0 + omega * ((1 - eta_t) * x_0 + eta_t * y) + j * y - (1 - eta_s) * x_0 - eta_s * y)
    asked = [mean.coeff(x_0), mean.coeff(y), sp.cancel(kappa**2 * (omega**2 * eta_t + zeta**2 - eta_s) / kappa**2)]
    printed = [k + omega * (1 - eta_t) - (1 - eta_s), j + omega * eta_t - eta_s, omega**2 * eta_t + zeta**2 - eta_s]
    assert all(sp.simplify(one - other) == 0 for one, other in zip(asked, printed, strict=True))
    of_omega = sp.solve(printed[:2], [k, j], dict=True)[0]
    assert sp.simplify(of_omega[k] + omega + of_omega[j]) == 1
    family = {omega: sp.sqrt((eta_s - zeta**2) / eta_t)}
    assert sp.simplify(printed[2].subs(family)) == 0
    without_noise = {omega: sp.sqrt(eta_s / eta_t)}
    assert sp.simplify(of_omega[j].subs(without_noise) - (eta_s - sp.sqrt(eta_s * eta_t))) == 0
    written = 1 - eta_s - sp.sqrt(eta_s / eta_t) + sp.sqrt(eta_s * eta_t)
    assert sp.simplify(of_omega[k].subs(without_noise) - written) == 0
    (no_anchor,) = sp.solve(of_omega[j], omega)
    assert sp.simplify(no_anchor - eta_s / eta_t) == 0
    assert sp.simplify(eta_s - no_anchor**2 * eta_t - eta_s / eta_t * more) == 0  # zeta^2


@pytest.mark.parametrize(("steps", "smallest"), [(15, 0.04), (4, 0.2)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_packages_steps_are_in_the_family(steps: int, smallest: float, eta: float):
    table = resshift_sqrt_etas(steps, min_noise_level=smallest)
    squares = torch.cat([table.new_zeros(1), table.square()])
    for kappa in (0.5, 2.0):
        path = ResidualShift(table, kappa)
        for t in range(1, steps + 1):
            for s in range(t):
                k, omega, j = step_coefficients(path, t, s, eta)
                fresh = path.posterior(RAMP, RAMP, RAMP, t, s, eta)[1] / kappa
                torch.testing.assert_close(k + omega * (1 - squares[t]), 1 - squares[s])
                torch.testing.assert_close(j + omega * squares[t], squares[s])
                torch.testing.assert_close(omega**2 * squares[t] + fresh**2, squares[s])


def test_the_step_shrinks_the_noise_that_it_sees():
    """The form with the noise equals the one with three factors."""
    path = ResidualShift(resshift_sqrt_etas(15), kappa=2.0)
    x_t, guess, y = normal(3, 1, 6)
    for t in range(1, 16):
        eta_t, eta_s = path.level(t).square(), path.level(t - 1).square()
        noise = (x_t - (1 - eta_t) * guess - eta_t * y) / (2.0 * eta_t.sqrt())
        k, omega, j = step_coefficients(path, t, t - 1, eta=0.0)
        written = (1 - eta_s) * guess + eta_s * y + 2.0 * eta_s.sqrt() * noise
        torch.testing.assert_close(k * guess + omega * x_t + j * y, written)


def test_without_fresh_noise_a_step_drops_less():
    """The factor of the guess is smaller than the posterior's in every step but the last."""
    path = ResidualShift(resshift_sqrt_etas(15), kappa=2.0)
    for t in range(2, 16):
        assert step_coefficients(path, t, t - 1, eta=0.0)[0] < step_coefficients(path, t, t - 1, eta=1.0)[0]


# What is learned


def test_a_draw_is_averaged_and_a_map_is_learned():
    """By enumeration: 6 starts, a target that also depends on fresh noise with 4 values, or does not."""
    draws = normal(6, 4, 3)
    mean = draws.mean(dim=1, keepdim=True)
    spread = (draws - mean).square().sum(dim=2).mean()
    for seed in range(5):
        f = mean[:, 0] + 0.3 * normal(6, 3, seed=seed)
        error = (f[:, None] - draws).square().sum(dim=2).mean()
        torch.testing.assert_close(error, (f - mean[:, 0]).square().sum(dim=1).mean() + spread)
    map_of_start = draws[:, :1].expand(-1, 4, -1)
    assert (map_of_start - map_of_start.mean(dim=1, keepdim=True)).square().sum() < 1e-24


def test_a_start_without_a_leak_gives_the_mean():
    """At eta_T = 1 the exact guess is the same for all starts: the posterior mean, whatever the noise."""
    path = ResidualShift(resshift_sqrt_etas(15, sqrt_eta_end=1.0), kappa=1.0)
    means, spread = path.marginal(EDGES, RAMP, 15)
    x = path.start(RAMP, normal(50, 4))
    beliefs = torch.softmax(-torch.cdist(x, means).square() / (2 * spread**2), dim=1)
    torch.testing.assert_close(beliefs @ EDGES, RAMP.expand(50, 4))


@pytest.mark.parametrize("size", [0.05, 0.5])
def test_the_student_is_as_far_as_its_error(size: float):
    """The Wasserstein distance of two clouds of equal weights, by the best assignment, is below that of the pairs."""
    path = ResidualShift(resshift_sqrt_etas(15), kappa=1.0)
    ends = walk(path, path.start(RAMP, normal(200, 4)))
    student = ends + size * normal(200, 4, seed=2)
    costs = torch.cdist(ends, student).square()
    rows, columns = linear_sum_assignment(costs.numpy())
    distance = costs[rows, columns].mean().sqrt()
    assert distance <= (ends - student).square().sum(dim=1).mean().sqrt() + 1e-12


def test_the_way_back_finds_the_means_of_regions():
    """On drawn starts: the regions' means have the least error, and what it leaves is missing in their spread."""
    path = ResidualShift(resshift_sqrt_etas(15), kappa=1.0)
    starts = path.start(RAMP, normal(5000, 4))
    region = torch.cdist(walk(path, starts), EDGES).argmin(dim=1)
    means = torch.stack([starts[region == k].mean(dim=0) for k in range(5)])
    share = torch.bincount(region, minlength=5) / len(starts)
    inside = torch.stack([starts[region == k].var(dim=0, unbiased=False).sum() for k in range(5)])
    least = (starts - means[region]).square().sum(dim=1).mean()
    torch.testing.assert_close(least, (share * inside).sum())
    for seed in range(5):
        other = means + 0.1 * normal(5, 4, seed=seed)
        assert (starts - other[region]).square().sum(dim=1).mean() > least
    total = (starts - RAMP).square().sum(dim=1).mean()
    torch.testing.assert_close((means[region] - RAMP).square().sum(dim=1).mean(), total - least)
    assert total.item() == pytest.approx(4 * path.level(15).square().item(), rel=0.05)


# Exercises


@pytest.mark.parametrize("black", [0.25, 0.6])
def test_one_pixel_sorts(black: float):
    """Every walk is non-decreasing, however few its steps; with many its threshold is the quantile of the start."""
    x = torch.linspace(-3, 4, 7001, dtype=torch.float64)[:, None]
    for steps in (2, 4, 200):
        path = ResidualShift(resshift_sqrt_etas(steps, sqrt_eta_end=1.0), kappa=1.0)

        def denoise(x: Tensor, t: Tensor, path: ResidualShift = path) -> Tensor:
            a, spread = path.signal(t[0]), path.level(t[0])
            zero, one = (-(x - 0.5 - a * (value - 0.5)).square() / (2 * spread**2) for value in (0.0, 1.0))
            return torch.sigmoid(one - zero + math.log((1 - black) / black))

        ends = ancestral(path, denoise, x, torch.full_like(x, 0.5), path.times(steps), eta=0.0).image
        assert ends.diff(dim=0).min() >= -1e-12
    quantile = 0.5 + torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(black)).item()
    assert x[ends > 0.5][0].item() == pytest.approx(quantile, abs=0.02)


def test_small_steps_converge_to_a_map():
    """The error against a fine walk halves when the steps double; it stays where fresh noise is drawn."""
    fine = ResidualShift(resshift_sqrt_etas(480), kappa=1.0)
    starts = fine.start(RAMP, normal(4000, 4))
    right = torch.cdist(walk(fine, starts), EDGES).argmin(dim=1)
    wrong = {}
    for steps in (8, 16, 32):
        for eta in (0.0, 1.0):
            ends = walk(ResidualShift(resshift_sqrt_etas(steps), kappa=1.0), starts, eta)
            wrong[steps, eta] = (torch.cdist(ends, EDGES).argmin(dim=1) != right).double().mean().item()
    assert 1.4 < wrong[8, 0.0] / wrong[16, 0.0] < 3 and 1.4 < wrong[16, 0.0] / wrong[32, 0.0] < 3
    assert min(wrong[steps, 1.0] for steps in (8, 16, 32)) > 0.5
