"""Proofs about IR-SDE: its marginal, whose path it is, its step in the noise, and what the loss on steps teaches."""

import math

import pytest
import sympy as sp
import torch
from torch import Tensor

from srbook.methods import IRSDE
from srbook.paths import DiscreteVP, MeanReverting
from srbook.schedules import cosine_betas, mean_reverting_thetas

EDGES = (torch.arange(4) >= torch.arange(5)[:, None]).double()
RAMP = EDGES.mean(dim=0)
LAMBDA = 30 / 255


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def work(path: MeanReverting, t: float, s: float) -> Tensor:
    """How much the spring works from s to t."""
    return -path.transition(t, s).log()


def test_the_marginal_solves_the_equations_of_mean_and_variance():
    """dm/dt = theta (mu - m) and dv/dt = g^2 - 2 theta v, for a drift theta (mu - x) and a diffusion g."""
    t, mu, x_0, lam = sp.symbols("t mu x_0 lambda", real=True)
    total = sp.Function("total")(t)
    theta = total.diff(t)
    mean = mu + sp.exp(-total) * (x_0 - mu)
    variance = lam**2 * (1 - sp.exp(-2 * total))
    assert sp.expand(mean.diff(t) - theta * (mu - mean)) == 0
    assert sp.expand(variance.diff(t) - (2 * lam**2 * theta - 2 * theta * variance)) == 0
    assert (sp.expand(mean.subs(total, 0)), variance.subs(total, 0)) == (x_0, 0)


def test_the_package_has_this_marginal():
    thetas, x0, anchor = mean_reverting_thetas(100), draw(5), draw(5, seed=1)
    mean, std = MeanReverting(thetas, LAMBDA).marginal(x0, anchor, 40)
    total = thetas[:40].sum()
    torch.testing.assert_close(mean, anchor + torch.exp(-total) * (x0 - anchor))
    torch.testing.assert_close(std.square().reshape(()), LAMBDA**2 * (1 - torch.exp(-2 * total)))


def test_it_is_ddpms_chain_around_the_anchor():
    """Both ways: IR-SDE's reversions as betas, and SRDiff's betas as reversions. And the mean square of x_t - mu."""
    thetas, betas = mean_reverting_thetas(100), cosine_betas(100)
    times = torch.arange(1, 101)
    for reverting, chain in (
        (MeanReverting(thetas, LAMBDA), DiscreteVP(1 - torch.exp(-2 * thetas), LAMBDA)),
        (MeanReverting(-0.5 * torch.log1p(-betas), 0.25), DiscreteVP(betas, 0.25)),
    ):
        torch.testing.assert_close(reverting.signal(times), chain.signal(times))
        torch.testing.assert_close(reverting.level(times), chain.level(times))
        torch.testing.assert_close(reverting.transition(times, times - 1), chain.transition(times, times - 1))
        assert reverting.sigma == chain.sigma
    for square, constant in ((LAMBDA**2, True), (0.25, False)):
        path = MeanReverting(thetas, LAMBDA)
        now = path.signal(times).square() * square + LAMBDA**2 * path.level(times).square()
        expected = LAMBDA**2 + path.signal(times).square() * (square - LAMBDA**2)
        torch.testing.assert_close(now, expected)
        assert torch.allclose(now, now[:1], rtol=1e-12, atol=0) == constant


@pytest.mark.parametrize(("t", "s"), [(1, 0), (2, 1), (60, 59), (100, 90), (100, 0)])
def test_the_step_in_the_noise(t: int, s: int):
    path = MeanReverting(mean_reverting_thetas(100), LAMBDA)
    x0, anchor, noise = draw(3, 7)
    x_t, theta = path.perturb(x0, anchor, t, noise), work(path, t, s)
    mean, std = path.posterior(x_t, x0, anchor, t, s)
    found = anchor + theta.exp() * (x_t - anchor) - 2 * LAMBDA * theta.sinh() / path.level(t) * noise
    torch.testing.assert_close(found, mean, rtol=1e-9, atol=1e-12)
    deviation = LAMBDA * path.level(s) / path.level(t) * (1 - (-2 * theta).exp()).sqrt()
    torch.testing.assert_close(deviation, std.reshape(()), rtol=1e-6, atol=1e-12)


def offset(path: MeanReverting, x_t: Tensor, noise: Tensor, anchor: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The weight and the offset of the theorem."""
    theta = work(path, t, t - 1)
    weight = 2 * path.sigma * theta / path.level(t)
    return weight, (theta.sinh() / theta - 1) * noise - (theta.exp() - 1 - theta) / weight * (x_t - anchor)


def method(steps: int) -> IRSDE:
    return IRSDE(scale=4, schedule={"steps": steps}, network={"kind": "unet", "width": 4, "depth": 1}, sigma=LAMBDA)


def test_the_loss_is_a_weighted_error_of_the_noise_with_an_offset():
    shares = []
    for steps, t in ((100, 100), (100, 1), (10, 10), (1000, 1000)):
        irsde = method(steps)
        x0, anchor, noise, guess = draw(4, 1, 50)
        x_t = irsde.path.perturb(x0, anchor, t, noise)
        weight, shift = offset(irsde.path, x_t, noise, anchor, t)
        best, _ = irsde.path.posterior(x_t, x0, anchor, t, t - 1)
        step = irsde.euler_step(x_t, guess, anchor, torch.tensor([float(t)]))
        torch.testing.assert_close(step - best, -weight * (guess - noise - shift), rtol=1e-7, atol=1e-12)
        if t == steps and steps >= 100:
            shares.append((shift.abs().mean() / work(irsde.path, t, t - 1)).item())
    assert max(shares) / min(shares) < 1.1  # small offsets are proportional to the work of their step


def test_the_best_network_makes_eulers_step_exact():
    """On the edges, with their exact beliefs: the mean of where the walk came from."""
    irsde, t = method(10), 7
    path = irsde.path
    x_t = path.perturb(EDGES[[0, 2, 4]], RAMP, t, draw(3, 4))
    means, spread = path.marginal(EDGES, RAMP, t)
    beliefs = torch.softmax(-torch.cdist(x_t, means).square() / (2 * spread**2), dim=1)
    came_from = torch.stack([path.posterior(x_t, edge.expand_as(x_t), RAMP, t, t - 1)[0] for edge in EDGES])
    expected = torch.einsum("ne,enp->np", beliefs, came_from)
    noises = (x_t[:, None] - means) / spread
    noise = torch.einsum("ne,nep->np", beliefs, noises)
    _, shift = offset(path, x_t, noise, RAMP, t)  # affine in the noise, so its mean is at the mean
    times = torch.full((3,), float(t))
    torch.testing.assert_close(irsde.euler_step(x_t, noise + shift, RAMP.expand_as(x_t), times), expected)
    without = irsde.euler_step(x_t, noise, RAMP.expand_as(x_t), times)
    assert (without - expected).abs().max() > 1e-3


def test_the_weights_of_the_bound():
    """The divergence of two steps that differ in the noise alone, and so in the x_0 that it implies."""
    path = MeanReverting(mean_reverting_thetas(100), LAMBDA)
    x_t, anchor, noise, guess = draw(4, 1, 6)
    for t in (2, 30, 100):
        images = [anchor + (x_t - anchor - LAMBDA * path.level(t) * e) / path.signal(t) for e in (noise, guess)]
        (mean, std), (other, _) = (path.posterior(x_t, x0, anchor, t, t - 1) for x0 in images)
        divergence = ((mean - other).square().sum() / (2 * std.square())).item()
        weight = math.expm1(2 * work(path, t, t - 1).item()) / (2 * path.level(t - 1).item() ** 2)
        assert divergence == pytest.approx(weight * (guess - noise).square().sum().item(), rel=1e-7)
