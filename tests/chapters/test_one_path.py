"""The theorems of chapter 5: rows of the table, the step by conditioning, its special cases, and the flow."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from srbook.exact import GaussianMixture, gaussian
from srbook.parametrizations import to_noise, to_x0
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.samplers import ancestral
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
MIXTURE = GaussianMixture(
    torch.tensor([1.0, 3.0], dtype=torch.float64),
    torch.tensor([[-0.6], [0.7]], dtype=torch.float64),
    torch.tensor([[[0.02]], [[0.05]]], dtype=torch.float64),
)
ANCHOR = torch.tensor([0.2], dtype=torch.float64)


def load(file: Path) -> dict[str, Tensor]:
    with np.load(file) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ratio(path: AnchoredPath, t: float | Tensor) -> Tensor:
    """The noise-to-signal ratio scale s_t / a_t."""
    return path.sigma * path.level(t) / path.signal(t)


def at_ratio(path: AnchoredPath, goal: Tensor) -> float:
    """The time at which the noise-to-signal ratio is `goal`, by bisection."""
    low, high = 0.0, path.end
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(path, middle) < goal else (low, middle)
    return (low + high) / 2


# The rows of the table: the program's variable is (x_t - anchor) / scale, with images in [0, 1].


@pytest.mark.parametrize(
    ("row", "betas", "anchored"),
    [
        ("ddpm", linear_betas(2000), False),
        ("sr3", linear_betas(2000, 1e-6, 1e-2), False),
        ("resdiff", linear_betas(1000, 1e-6, 1e-2), True),
        ("esrdf", linear_betas(200, 1e-6, 1e-2), True),
    ],
)
def test_ddpm_rows_make_the_released_inputs(vectors: Path, row: str, betas: Tensor, anchored: bool) -> None:
    stored = load(vectors / "losses_sr3_resdiff_ddpm_esrdf.npz")
    path = DiscreteVP(betas, sigma=0.5)
    if f"{row}_t" in stored and row != "sr3":
        t = stored[f"{row}_t"] + 1
    else:  # the program draws a level between two steps; the path has a time for it
        decay, level = path.decay(torch.arange(int(path.end) + 1)), -stored[f"{row}_sqrt_gamma"][:, 0].log()
        step = torch.searchsorted(decay, level)
        t = step - 1 + (level - decay[step - 1]) / (decay[step] - decay[step - 1])
    x0, y = (stored["hr"] + 1) / 2, (stored["sr"] + 1) / 2
    anchor = y if anchored else torch.tensor(0.5, dtype=torch.float64)
    z_t = (path.perturb(x0, anchor, t, stored["noise"]) - anchor) / path.sigma
    assert_allclose(torch.cat([stored["sr"], z_t], 1), stored[f"{row}_net_input"], **TIGHT)


def test_srdiff_row_makes_the_released_input(vectors: Path) -> None:
    stored = load(vectors / "srdiff_residual_and_loss.npz")
    path, anchor = DiscreteVP(cosine_betas(100), sigma=0.25), (stored["lr_up"] + 1) / 2
    x0 = anchor + ((stored["hr"] + 1) / 2 - anchor).clamp(-0.25, 0.25)  # its program clips the doubled residual
    z_t = (path.perturb(x0, anchor, stored["t"] + 1, stored["noise"]) - anchor) / path.sigma
    assert_allclose(z_t, stored["x_t"], **TIGHT)


def test_ecdp_row_has_the_released_velocity(vectors: Path) -> None:
    """In pixels at sigma = 0.2, the flow is 0.2 times the released drift of 5 (x - anchor)."""
    stored = load(vectors / "ecdp_pf_drift.npz")
    path, anchor = ContinuousVP(sigma=0.2), draw(*stored["z_t"].shape)
    x_t = anchor + 0.2 * stored["z_t"]
    for index, tau in enumerate((stored["t_index"] / 300).tolist()):
        x0 = to_x0(path, "eps", stored["hybrid_eps"][index], x_t, anchor, tau)
        drift = path.velocity(x_t, x0, anchor, tau)
        assert_allclose(drift / 0.2, stored["drift_per_tau"][index], rtol=1e-8, atol=1e-9)


# The transition.


@pytest.mark.parametrize("name", ["ddpm", "cosine", "resshift", "irsde"])
def test_chains_have_the_multiplier(name: str) -> None:
    """Walk each chain step by step as its paper writes it, with the covariances carried along."""
    path = PATHS[name]
    steps = int(path.end)
    if name == "resshift":
        etas = resshift_sqrt_etas(15).square()
        kept, added = torch.ones(steps), torch.diff(etas, prepend=etas.new_zeros(1))
    elif name == "irsde":
        kept = torch.exp(-mean_reverting_thetas(30))
        added = 1 - kept.square()
    else:
        added = linear_betas(50) if name == "ddpm" else cosine_betas(20)
        kept = (1 - added).sqrt()
    covariance = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    for t in range(1, steps + 1):
        covariance[t, :t] = covariance[:t, t] = kept[t - 1] * covariance[t - 1, :t]
        covariance[t, t] = kept[t - 1] ** 2 * covariance[t - 1, t - 1] + added[t - 1]
    for s in range(1, steps + 1):
        t = torch.arange(s, steps + 1)
        assert_allclose(path.transition(t, s) * path.level(s) ** 2, covariance[s, s:], rtol=1e-9)


@every_path
def test_multipliers_compose_and_leave_room_for_noise(path: AnchoredPath) -> None:
    r, s, t = (share * path.end for share in (0.2, 0.5, 0.9))
    assert_allclose(path.transition(t, s) * path.transition(s, r), path.transition(t, r), rtol=1e-12)
    assert path.transition(t, s) * path.level(s) < path.level(t)


def test_only_resshifts_forward_step_knows_the_image() -> None:
    """E[x_t | x_s, x_0] moves with x_0 by a_t - m a_s: zero where m = a_t / a_s."""
    for name, path in PATHS.items():
        s, t = 0.4 * path.end, 0.8 * path.end
        slope = path.signal(t) - path.transition(t, s) * path.signal(s)
        if name == "resshift":
            assert_allclose(slope, path.level(s) ** 2 - path.level(t) ** 2, rtol=1e-12)  # eta_s - eta_t
        else:
            assert abs(slope) < 1e-12


# The step.


@every_path
def test_step_is_the_conditional_gaussian(path: AnchoredPath) -> None:
    """Condition the joint Gaussian of (x_s, x_t) by inverting its precision matrix."""
    x_t, x0, anchor = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), draw(2, 1, 3, 3, seed=2)
    s, t = 0.3 * path.end, 0.7 * path.end
    (mean_s, std_s), (mean_t, std_t) = path.marginal(x0, anchor, s), path.marginal(x0, anchor, t)
    shared = path.transition(t, s) * std_s**2
    precision = torch.linalg.inv(torch.stack([std_s**2, shared, shared, std_t**2]).reshape(2, 2))
    mean, std = path.posterior(x_t, x0, anchor, t, s)
    assert_allclose(mean, mean_s - precision[0, 1] / precision[0, 0] * (x_t - mean_t), rtol=1e-8, atol=1e-9)
    assert_allclose(std, precision[0, 0] ** -0.5, rtol=1e-8)


@every_path
def test_without_fresh_noise_the_multiplier_does_not_matter(path: AnchoredPath) -> None:
    x_t, x0, anchor = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), draw(2, 1, 3, 3, seed=2)
    s, t = 0.3 * path.end, 0.7 * path.end
    mean, std = path.posterior(x_t, x0, anchor, t, s, eta=0.0)
    assert_allclose(mean, path.perturb(x0, anchor, s, to_noise(path, "x0", x0, x_t, anchor, t)), **TIGHT)
    assert std == 0


A_S, A_T, S_S, S_T, M, ETA = sp.symbols("a_s a_t s_s s_t m eta", positive=True)
ZETA = ETA * S_S * sp.sqrt(1 - M**2 * S_S**2 / S_T**2)
KEPT = sp.sqrt(S_S**2 - ZETA**2)
ON_STATE, ON_IMAGE = KEPT / S_T, A_S - KEPT * A_T / S_T
ON_ANCHOR = 1 - ON_STATE - ON_IMAGE


def same(left: sp.Expr, right: sp.Expr, **ranges: float) -> None:
    """Equal as functions: SymPy brings the difference of squares to zero, or many digits at odd numbers agree."""
    symbols = sorted((left - right).free_symbols, key=str)
    if sp.simplify(left - right) != 0:
        at = {symbol: sp.Rational(ranges.get(str(symbol), 31 + 7 * i), 97) for i, symbol in enumerate(symbols)}
        assert abs(sp.N((left - right).subs(at), 40)) < sp.Float(10) ** -35, sp.simplify(left - right)


def test_step_of_ddpm_by_symbols() -> None:
    abar_s, beta = sp.symbols("abar_s beta", positive=True)
    abar_t = abar_s * (1 - beta)
    vp = {A_S: sp.sqrt(abar_s), A_T: sp.sqrt(abar_t), S_S: sp.sqrt(1 - abar_s), S_T: sp.sqrt(1 - abar_t)}
    vp[M] = sp.sqrt(1 - beta)
    same(ON_IMAGE.subs(vp).subs(ETA, 1), sp.sqrt(abar_s) * beta / (1 - abar_t))
    same(ON_STATE.subs(vp).subs(ETA, 1), sp.sqrt(1 - beta) * (1 - abar_s) / (1 - abar_t))
    same((ZETA**2).subs(vp).subs(ETA, 1), (1 - abar_s) / (1 - abar_t) * beta)
    ddim = ETA * sp.sqrt((1 - abar_s) / (1 - abar_t)) * sp.sqrt(1 - abar_t / abar_s)  # Song, Meng, and Ermon
    same(ZETA.subs(vp), ddim)


def test_steps_of_resshift_and_deltadiff_by_symbols() -> None:
    eta_s, eta_t = sp.symbols("eta_s eta_t", positive=True)
    shift = {A_S: 1 - eta_s, A_T: 1 - eta_t, S_S: sp.sqrt(eta_s), S_T: sp.sqrt(eta_t), M: 1}
    same(ON_STATE.subs(shift).subs(ETA, 1), eta_s / eta_t)
    same(ON_IMAGE.subs(shift).subs(ETA, 1), 1 - eta_s / eta_t)
    same(ON_ANCHOR.subs(shift).subs(ETA, 1), sp.Integer(0))  # so DeltaDiff's step is the same with scale = 0
    same((ZETA**2).subs(shift).subs(ETA, 1), eta_s / eta_t * (eta_t - eta_s))
    same(ON_STATE.subs(shift).subs(ETA, 0), sp.sqrt(eta_s / eta_t))  # SinSR's teacher


def test_step_of_irsde_by_symbols() -> None:
    decay_s, theta = sp.symbols("decay_s theta", positive=True)
    decay_t = decay_s + theta
    forget = {A_S: sp.exp(-decay_s), A_T: sp.exp(-decay_t), M: sp.exp(-theta)}
    forget |= {S_S: sp.sqrt(1 - sp.exp(-2 * decay_s)), S_T: sp.sqrt(1 - sp.exp(-2 * decay_t))}
    share = 1 - sp.exp(-2 * decay_t)
    same(ON_STATE.subs(forget).subs(ETA, 1), (1 - sp.exp(-2 * decay_s)) / share * sp.exp(-theta))
    same(ON_IMAGE.subs(forget).subs(ETA, 1), (1 - sp.exp(-2 * theta)) / share * sp.exp(-decay_s))
    same((ZETA**2).subs(forget).subs(ETA, 1), (1 - sp.exp(-2 * theta)) * (1 - sp.exp(-2 * decay_s)) / share)


# What is left when the scale is divided out.


@every_path
def test_best_guess_depends_on_the_ratio_alone(path: AnchoredPath) -> None:
    """Two paths at times of equal scale s / a, fed with the same x_0 and noise, give the same posterior mean."""
    other, noise, x0 = DiscreteVP(linear_betas(1000), sigma=0.7), draw(6, 1), draw(6, 1, seed=1)
    elsewhere, t = torch.tensor([-0.4], dtype=torch.float64), 0.4 * path.end
    elsewhen = at_ratio(other, ratio(path, t))
    assert path.signal(t) > 0 and other.signal(elsewhen) > 0  # else there is no ratio
    one = MIXTURE.posterior_mean(path, path.perturb(x0, ANCHOR, t, noise), ANCHOR, t)
    two = MIXTURE.posterior_mean(other, other.perturb(x0, elsewhere, elsewhen, noise), elsewhere, elsewhen)
    assert_allclose(one, two, rtol=1e-7, atol=1e-9)


def test_without_signal_the_guess_is_the_mean() -> None:
    """Where a_t is zero, whatever x_t is, the posterior mean is that of the prior."""
    path = ResidualShift(torch.linspace(0.2, 1.0, 5, dtype=torch.float64), kappa=0.5)
    assert path.signal(5) == 0
    mean = torch.tensor([0.25 * -0.6 + 0.75 * 0.7], dtype=torch.float64)
    assert_allclose(MIXTURE.posterior_mean(path, draw(6, 1), ANCHOR, 5), mean.expand(6, 1), rtol=1e-12)


@every_path
def test_deterministic_step_is_euler_in_the_ratio(path: AnchoredPath) -> None:
    """With u = (x - anchor) / a, the step at eta = 0 is u_s = u_t + (ratio_s - ratio_t) noise."""
    x_t, x0, anchor = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), draw(2, 1, 3, 3, seed=2)
    s, t = 0.3 * path.end, 0.7 * path.end
    noise = to_noise(path, "x0", x0, x_t, anchor, t)
    u = (x_t - anchor) / path.signal(t) + (ratio(path, s) - ratio(path, t)) * noise
    assert_allclose(path.posterior(x_t, x0, anchor, t, s, eta=0.0)[0], anchor + path.signal(s) * u, **TIGHT)


@every_path
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_drops_the_spread_of_the_image(path: AnchoredPath, eta: float) -> None:
    """Variances of a Gaussian: a step with the mean of x_0, and the spread that x_0 has left, give the marginal."""
    variance = 0.03
    s, t = 0.2 * path.end, 0.9 * path.end
    (a_s, a_t), (n_s, n_t) = ((f(s), f(t)) for f in (path.signal, lambda u: path.sigma * path.level(u)))
    before, after = (a**2 * variance + n**2 for a, n in ((a_t, n_t), (a_s, n_s)))
    one = torch.ones(1, 1, dtype=torch.float64)
    slope, std = path.posterior(one, a_t * variance / before * one, 0 * one, t, s, eta)
    by_image = path.posterior(one, one, 0 * one, t, s, eta)[0] - path.posterior(one, 0 * one, 0 * one, t, s, eta)[0]
    left = variance * n_t**2 / before  # Var(x_0 | x_t)
    assert_allclose(slope**2 * before + std**2 + by_image**2 * left, (after * one), rtol=1e-9)
    assert by_image**2 * left > 0


@every_path
def test_fresh_noise_makes_steps_drop_more(path: AnchoredPath) -> None:
    """The factor k of x_0 grows with eta, except in the last step, where it is one."""
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    times = path.times(6)

    def factors(eta: float) -> list[float]:
        means = ([path.posterior(zero, x0, zero, t, s, eta)[0] for x0 in (one, zero)] for t, s in pairwise(times))
        return [(with_image - without).item() for with_image, without in means]

    without, half, fresh = factors(0.0), factors(0.5), factors(1.0)
    assert all(a < b < c for a, b, c in zip(without[:-1], half[:-1], fresh[:-1], strict=True))
    assert_allclose([without[-1], half[-1], fresh[-1]], 1, rtol=1e-12)


@every_path
def test_one_flow_for_all_paths(path: AnchoredPath) -> None:
    """Deterministic sampling on two paths agrees when both stop at the same noise-to-signal ratios."""
    other, elsewhere = DiscreteVP(linear_betas(1000), sigma=0.7), torch.tensor([-0.4], dtype=torch.float64)
    times = [share * path.end for share in (0.8, 0.6, 0.3, 0.05)] + [0.0]
    matched = [at_ratio(other, ratio(path, t)) for t in times[:-1]] + [0.0]
    noise = draw(6, 1)

    def sample(path: AnchoredPath, anchor: Tensor, times: list[float]) -> Tensor:
        x = anchor + path.signal(times[0]) * (0.1 - anchor) + path.sigma * path.level(times[0]) * noise
        return ancestral(path, lambda x, t: MIXTURE.posterior_mean(path, x, anchor, t), x, anchor, times, eta=0.0).image

    assert_allclose(sample(path, ANCHOR, times), sample(other, elsewhere, matched), rtol=1e-7, atol=1e-9)


# The flow.


@every_path
@pytest.mark.parametrize("share", [0.15, 0.45, 0.85])
def test_velocity_solves_the_continuity_equation(path: AnchoredPath, share: float) -> None:
    """d log p/dt + dv/dx + v d log p/dx = 0 in one dimension, by autograd, at a mixture's exact density."""
    moment = (torch.tensor(share, dtype=torch.float64) * path.end).requires_grad_()
    x = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64)[:, None].requires_grad_()
    log_p = MIXTURE.log_density(path, x, ANCHOR, moment)
    by_time = torch.stack([torch.autograd.grad(value, moment, retain_graph=True)[0] for value in log_p])
    (by_place,) = torch.autograd.grad(log_p.sum(), x)
    flow = path.velocity(x, MIXTURE.posterior_mean(path, x, ANCHOR, moment.detach()), ANCHOR, moment.detach())
    (spread,) = torch.autograd.grad(flow.sum(), x)
    assert_allclose(by_time + (spread + flow * by_place)[:, 0].detach(), np.zeros(9), atol=1e-8 * by_time.abs().max())


@every_path
def test_small_deterministic_steps_follow_the_velocity(path: AnchoredPath) -> None:
    x_t, x0, anchor, t = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), draw(2, 1, 3, 3, seed=2), 0.63 * path.end
    step = 1e-6 * path.end
    moved = path.posterior(x_t, x0, anchor, t, t - step, eta=0.0)[0]
    assert_allclose((x_t - moved) / step, path.velocity(x_t, x0, anchor, t), rtol=1e-4, atol=1e-5)


# Predictions and starts.


@every_path
def test_errors_grow_as_the_table_says(path: AnchoredPath) -> None:
    """An error of one in the output becomes scale s/a, 1, scale s, scale^2 s^2/a in the image, and so on."""
    x_t, output, anchor, one = draw(1, 1), draw(1, 1, seed=1), draw(1, 1, seed=2), 1.0
    for t in (0.1 * path.end, 0.9 * path.end):
        a, s, scale = path.signal(t), path.level(t), path.sigma
        norm = a**2 + s**2
        expected = {
            "eps": (scale * s / a, one),
            "x0": (one, a / (scale * s)),
            "residual": (one, a / (scale * s)),
            "v": (scale * s / norm, a / norm),
            "score": ((scale * s) ** 2 / a, scale * s),
        }
        for kind, errors in expected.items():
            for read, error in zip((to_x0, to_noise), errors, strict=True):
                moved = read(path, kind, output + 1, x_t, anchor, t) - read(path, kind, output, x_t, anchor, t)
                assert_allclose(moved.abs().item(), float(error), rtol=1e-8)


@pytest.mark.parametrize("start", [0.5, 1.25])
def test_a_wrong_start_stays_wrong_without_fresh_noise(start: float) -> None:
    """Many deterministic steps multiply the spread of a Gaussian by what the start had too much."""
    path = DiscreteVP(linear_betas(400, 1e-5, 1e-2), sigma=0.5)
    prior = gaussian(torch.zeros(1, dtype=torch.float64), torch.tensor([[0.03]], dtype=torch.float64))
    right = (path.signal(path.end) ** 2 * 0.03 + (path.sigma * path.level(path.end)) ** 2).sqrt()
    end = ancestral(
        path,
        lambda x, t: prior.posterior_mean(path, x, torch.zeros(1), t),
        (start * right).reshape(1, 1),
        torch.zeros(1),
        path.times(400),
        eta=0.0,
    )
    assert end.image.item() == pytest.approx(start * 0.03**0.5, rel=2e-2)
