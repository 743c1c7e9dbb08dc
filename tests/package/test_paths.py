"""Paths against the released programs, against autograd, and against the algebra of Gaussians."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.schedules import cosine_betas, linear_betas, mean_reverting_thetas, resshift_sqrt_etas

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
PATHS: dict[str, AnchoredPath] = {
    "ddpm": DiscreteVP(linear_betas(50), sigma=0.5),
    "cosine": DiscreteVP(cosine_betas(20), sigma=0.25),
    "continuous": ContinuousVP(sigma=0.2),
    "resshift": ResidualShift(resshift_sqrt_etas(15), kappa=2.0),
    "irsde": MeanReverting(mean_reverting_thetas(30)),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def load(file: Path) -> dict[str, Tensor]:
    with np.load(file) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner_times(path: AnchoredPath) -> list[float]:
    return [share * path.end for share in (0.03, 0.2, 0.51, 0.8, 1.0)]


@pytest.mark.parametrize(
    ("file", "betas"),
    [
        ("psample_ddpm_ho_T1000", linear_betas(1000)),
        ("psample_ddpm_repo_T2000", linear_betas(2000)),
        ("psample_resdiff_T1000", linear_betas(1000, 1e-6, 1e-2)),
        ("psample_esrdf_T200", linear_betas(200, 1e-6, 1e-2)),
        ("psample_srdiff_T100", cosine_betas(100)),
    ],
)
def test_posterior_is_the_released_ddpm_step(vectors: Path, file: str, betas: Tensor) -> None:
    stored = load(vectors / f"{file}.npz")
    path, anchor, x_t = DiscreteVP(betas), torch.zeros(()), stored["x_t"]
    for index, slot in enumerate(stored["t"].tolist()):
        t = slot + 1
        x0 = (x_t - path.level(t) * stored["eps_pred"]) / path.signal(t)
        for key, prediction in (("mean_noclip", x0), ("mean_clip", x0.clamp(-1, 1))):
            mean, std = path.posterior(x_t, prediction, anchor, t, t - 1)
            assert_allclose(mean, stored[key][index], **TIGHT)
        assert_allclose(std.square(), stored["posterior_variance"][slot], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "sqrt_etas"), [("v1_T15", resshift_sqrt_etas(15)), ("v3_T4", resshift_sqrt_etas(4, min_noise_level=0.2))]
)
def test_resshift_steps(vectors: Path, name: str, sqrt_etas: Tensor) -> None:
    stored = load(vectors / "resshift_steps.npz")
    path, y = ResidualShift(sqrt_etas), stored["y"]
    assert_allclose(path.start(y, stored["noise"]), stored[f"{name}/prior_sample"], **TIGHT)
    for slot in {"v1_T15": (0, 1, 14), "v3_T4": (0, 3)}[name]:
        key, t = f"{name}/t{slot}/f64", slot + 1
        x_t = path.perturb(stored["x0"], y, t, stored["noise"])
        assert_allclose(x_t, stored[f"{key}/q_sample"], **TIGHT)
        mean, std = path.posterior(x_t, stored["x0_hat"], y, t, slot)
        assert_allclose(mean, stored[f"{key}/post_mean"], **TIGHT)
        assert_allclose(mean + std * stored["step_noise"], stored[f"{key}/p_sample"], **TIGHT)


def test_resshift_batch_of_mixed_times(vectors: Path) -> None:
    stored = load(vectors / "resshift_steps.npz")
    path = ResidualShift(resshift_sqrt_etas(15))
    mixed = path.perturb(stored["x0"], stored["y"], torch.tensor([4, 12]), stored["noise"])
    assert_allclose(mixed, stored["v1_T15/mixed_t_3_11/f64/q_sample"], **TIGHT)


@pytest.mark.parametrize(
    ("name", "sqrt_etas"),
    [
        ("T15", resshift_sqrt_etas(15)),
        ("T5_from15", resshift_sqrt_etas(15)[::3]),
        # SinSR's program caps eta_1 at 0.001, which 4 steps from 0.1 would exceed
        ("T4_v3", resshift_sqrt_etas(4, min_noise_level=2 * 0.001**0.5)),
    ],
)
def test_sinsr_teacher_is_eta_zero(vectors: Path, name: str, sqrt_etas: Tensor) -> None:
    stored = load(vectors / "sinsr_steps.npz")
    path = ResidualShift(sqrt_etas)
    steps = [key for key in stored if key.startswith(f"{name}/")]
    assert len(steps) >= 4
    for key in steps:
        t = int(key.split("/")[1][1:]) + 1
        mean, std = path.posterior(stored["x_t"], stored["x0_hat"], stored["y"], t, t - 1, eta=0.0)
        assert_allclose(mean, stored[key], **TIGHT)
        assert std == 0


def test_deltadiff_is_the_limit_without_noise(vectors: Path) -> None:
    stored = load(vectors / "deltadiff_steps.npz")
    x0, y = stored["x0"], stored["y"]
    sqrt_etas = resshift_sqrt_etas(4, kappa=1.0, min_noise_level=0.01)
    path = ResidualShift(sqrt_etas, kappa=0.0)
    assert_allclose(path.start(y, draw(*y.shape)), stored["prior"], **TIGHT)
    for slot in range(4):
        x_t = path.perturb(x0, y, slot + 1, draw(*x0.shape))
        assert_allclose(x_t, stored[f"t{slot}/x_t"], **TIGHT)
        for key, prediction in (("x_tm1_given_x0hat", stored["x0_hat"]), ("x_tm1_given_true_x0", x0)):
            mean, std = path.posterior(x_t, prediction, y, slot + 1, slot)
            assert_allclose(mean, stored[f"t{slot}/{key}"], **TIGHT)
            assert std == 0


@pytest.mark.parametrize("t", [1, 2, 50, 100])
def test_irsde_steps(vectors: Path, t: int) -> None:
    stored = load(vectors / "irsde.npz")
    family = "f64/cosine_T100_s30_eps0.005"
    expected = {key.split("/")[-1]: value for key, value in stored.items() if key.startswith(f"{family}/t{t}/")}
    path = MeanReverting(mean_reverting_thetas(100), 30 / 255)
    x0, anchor, x_t, noise = (stored[key] for key in ("x0", "mu", "x_t", "noise"))
    mean, std = path.marginal(x0, anchor, t)
    assert_allclose(mean, expected["mu_bar"], **TIGHT)
    assert_allclose(std, stored[f"{family}/sigma_bars"][t], **TIGHT)
    mean, std = path.posterior(x_t, x0, anchor, t, t - 1)
    assert_allclose(mean, expected["reverse_optimum"], **TIGHT)
    assert_allclose(std, expected["reverse_optimum_std"], **TIGHT)
    # one Euler step of length 1 along the probability flow, with the clean image that the noise implies
    implied = anchor + (x_t - anchor - path.sigma * path.level(t) * noise) / path.signal(t)
    assert_allclose(implied, expected["x0_from_noise"], **TIGHT)
    assert_allclose(x_t - path.velocity(x_t, implied, anchor, t), expected["reverse_ode"], rtol=1e-9, atol=1e-10)


def test_ecdp_is_continuous_in_the_same_clock(vectors: Path) -> None:
    """A discrete path with the betas of the released 300-step grid meets the continuous one at every step."""
    stored = load(vectors / "ecdp_schedule.npz")
    discrete, continuous = DiscreteVP(stored["disc_betas"], 0.2), ContinuousVP(sigma=0.2)
    steps = torch.arange(301)
    assert_allclose(discrete.signal(steps), continuous.signal(steps / 300.0), rtol=1e-5)  # steps / 300.0 is float32
    assert_allclose(discrete.level(300), continuous.level(1.0), **TIGHT)


@every_path
def test_boundaries_and_monotony(path: AnchoredPath) -> None:
    t = torch.linspace(0, path.end, 61, dtype=torch.float64)
    signal, noise = path.signal(t), path.level(t)
    assert signal[0] == 1 and noise[0] == 0
    assert bool((signal.diff() < 0).all() and (noise.diff() > 0).all())
    x0 = draw(2, 3, 4, 4)
    mean, std = path.marginal(x0, draw(2, 3, 4, 4, seed=1), 0)
    assert_allclose(mean, x0, **TIGHT)
    assert std == 0


@every_path
def test_rates_and_velocity_against_autograd(path: AnchoredPath) -> None:
    x0, anchor, noise = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), draw(2, 1, 3, 3, seed=2)
    for moment in inner_times(path)[:-1]:
        t = torch.tensor(moment, dtype=torch.float64, requires_grad=True)
        for value, rate in (
            (path.signal(t), path.signal_rate(t)),
            (path.level(t).square(), path.variance_rate(t)),
            (-torch.log(path.transition(t, moment / 2)), path.decay_rate(t)),
        ):
            (slope,) = torch.autograd.grad(value, t, allow_unused=True) if value.requires_grad else (t.new_zeros(()),)
            assert_allclose(rate.detach(), slope, rtol=1e-9, atol=1e-12)
        x_t = path.perturb(x0, anchor, moment, noise)
        derivative = torch.autograd.functional.jacobian(lambda u: path.perturb(x0, anchor, u, noise), t.detach())
        assert_allclose(path.velocity(x_t, x0, anchor, moment), derivative, rtol=1e-9, atol=1e-10)


@every_path
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_posterior_keeps_the_marginal(path: AnchoredPath, eta: float) -> None:
    """Averaged over x_t, the step back from t gives the marginal at s: means map, and variances add up."""
    x0, anchor = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1)
    for t in inner_times(path):
        for s in (0.0, 0.4 * t, 0.9 * t):
            at_mean, fresh = path.posterior(path.marginal(x0, anchor, t)[0], x0, anchor, t, s, eta)
            off_mean, _ = path.posterior(path.marginal(x0, anchor, t)[0] + 1, x0, anchor, t, s, eta)
            mean, std = path.marginal(x0, anchor, s)
            assert_allclose(at_mean, mean, **TIGHT)
            slope = off_mean - at_mean
            variance = slope.square() * path.marginal(x0, anchor, t)[1] ** 2 + fresh**2
            assert_allclose(variance, (std**2).expand_as(variance), **TIGHT)
            if eta == 1:  # Cov(x_s, x_t) = slope * Var(x_t)
                covariance = path.transition(t, s) * std**2
                assert_allclose(slope * path.marginal(x0, anchor, t)[1] ** 2, covariance.expand_as(slope), **TIGHT)


@every_path
def test_transition_by_simulation(path: AnchoredPath) -> None:
    """The multiplier and `diffusion` describe one process: integrate the forward equation of the variance."""
    s, t, parts = 0.3 * path.end, 0.9 * path.end, 4000
    edges = torch.linspace(s, t, parts + 1, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    gained = (path.transition(t, middle).square() * path.diffusion(middle).square()).mean() * (t - s)
    expected = path.sigma**2 * (path.level(t).square() - (path.transition(t, s) * path.level(s)).square())
    assert_allclose(gained, expected, rtol=2e-3)  # the rates of discrete paths jump inside a part


def test_monte_carlo_of_the_ddpm_chain() -> None:
    betas = linear_betas(10, 0.05, 0.3)
    path, generator = DiscreteVP(betas, sigma=0.5), torch.Generator().manual_seed(0)
    x = earlier = torch.full((200_000,), 1.3, dtype=torch.float64)
    for t, beta in enumerate(betas.tolist(), start=1):
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = 0.2 + (1 - beta) ** 0.5 * (x - 0.2) + 0.5 * beta**0.5 * z
        earlier = x if t <= 4 else earlier
    mean, std = path.marginal(torch.full((1,), 1.3, dtype=torch.float64), torch.tensor(0.2), 10)
    assert_allclose(x.mean(), mean.item(), atol=5e-3)
    assert_allclose(x.std(), std.item(), rtol=5e-3)
    covariance = ((x - x.mean()) * (earlier - earlier.mean())).mean()
    assert_allclose(covariance, path.transition(10, 4) * path.level(4) ** 2 * 0.25, rtol=2e-2)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_types_and_batches(path: AnchoredPath, dtype: torch.dtype) -> None:
    x0, anchor, x_t = (draw(3, 2, 4, 4, seed=seed).to(dtype) for seed in range(3))
    t, s = torch.tensor([0.9, 0.5, 0.8]) * path.end, torch.tensor([0.7, 0.0, 0.2]) * path.end
    mean, std = path.posterior(x_t, x0, anchor, t, s, 0.5)
    velocity = path.velocity(x_t, x0, anchor, t)
    assert mean.dtype == std.dtype == velocity.dtype == path.start(anchor, x_t).dtype == dtype
    assert std.shape == (3, 1, 1, 1)
    for i in range(3):
        one = slice(i, i + 1)
        alone, alone_std = path.posterior(x_t[one], x0[one], anchor[one], t[i], float(s[i]), 0.5)
        torch.testing.assert_close(alone, mean[one])
        torch.testing.assert_close(alone_std, std[i].squeeze())
        torch.testing.assert_close(path.velocity(x_t[one], x0[one], anchor[one], t[one]), velocity[one])


def test_times() -> None:
    assert PATHS["resshift"].times(4) == [15, 11, 8, 4, 0]
    assert PATHS["resshift"].times(15) == list(range(15, -1, -1))
    assert_allclose(PATHS["continuous"].times(2, last=0.5), [1.0, 0.75, 0.5])


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.signal(16), r"lie in \[0, 15.0\], got 16"),
        (lambda p: p.signal(-1), r"got -1"),
        (lambda p: p.signal(float("nan")), "got nan"),
        (lambda p: p.signal(torch.zeros(2, 2)), r"shape \(\) or \(N,\), got \(2, 2\)"),
        (lambda p: p.perturb(X, X, torch.tensor([1, 2, 3]), X), r"\(N,\) = \(2,\), got \(3,\)"),
        (lambda p: p.posterior(X, X, X, 3, 3), "smaller s, got t = 3.0 and s = 3.0"),
        (lambda p: p.posterior(X, X, X, 3, 2, eta=1.1), r"eta must lie in \[0, 1\], got 1.1"),
        (lambda p: p.velocity(X, X, X, 0), "no value at t = 0"),
        (lambda p: p.times(16), "15 whole steps, got steps=16"),
        (lambda p: p.times(2, last=0.5), "down to time 0.5"),
        (lambda p: p.times(0), "steps must be an integer of at least 1, got 0"),
        (lambda p: p.times(1, last=-1.0), "last must be at least 0"),
        (lambda p: DiscreteVP(torch.tensor([0.1, 1.0])), "betas must lie strictly between 0 and 1"),
        (lambda p: DiscreteVP([0.1]), "betas must be a tensor of shape"),
        (lambda p: DiscreteVP(linear_betas(4), sigma=-1.0), "at least 0, got -1"),
        (lambda p: MeanReverting(torch.tensor([0.1, 0.0])), "thetas must be positive, got 0"),
        (lambda p: ResidualShift(torch.tensor([0.5, 0.5])), "must grow strictly"),
        (lambda p: ResidualShift(torch.zeros(2, 2)), r"got \(2, 2\)"),
        (lambda p: ContinuousVP(beta_min=3.0, beta_max=1.0), "0 < beta_min <= beta_max, got 3.0 and 1.0"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PATHS["resshift"])
