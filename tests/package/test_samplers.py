"""Samplers against exact Gaussians and mixtures, the released loops, and the order of the solvers."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rounding import assert_repeats, identical
from torch import Tensor
from torch.nn.functional import conv2d

from srbook.exact import GaussianMixture, gaussian
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.samplers import SampleResult, ancestral, euler_maruyama, probability_flow, reverse_sde
from srbook.schedules import linear_betas, mean_reverting_thetas, resshift_sqrt_etas

PATHS: dict[str, AnchoredPath] = {
    "ddpm": DiscreteVP(linear_betas(200, 1e-4, 0.08), sigma=0.5),
    "continuous": ContinuousVP(sigma=0.5),
    "resshift": ResidualShift(resshift_sqrt_etas(200, power=0.5, sqrt_eta_end=0.999)),
    "irsde": MeanReverting(mean_reverting_thetas(200), sigma=0.5),
}
ANCHOR = torch.tensor([0.3, -0.2], dtype=torch.float64)
PRIOR = gaussian(
    torch.tensor([0.5, -0.5], dtype=torch.float64), torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
)
MIXTURE = GaussianMixture(
    torch.tensor([1.0, 3.0], dtype=torch.float64),
    torch.tensor([[-0.8, 0.4], [0.9, -0.3]], dtype=torch.float64),
    0.02 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2),
)


def exact(path: AnchoredPath, prior: GaussianMixture) -> Callable[[Tensor, Tensor], Tensor]:
    # all times of a batch are equal; a single one spares a factorization per point
    return lambda x, t: prior.posterior_mean(path, x, ANCHOR, t[0])


def at_the_end(path: AnchoredPath, prior: GaussianMixture, count: int, generator: torch.Generator) -> Tensor:
    x0 = prior.sample(count, generator)
    return path.perturb(x0, ANCHOR, path.end, torch.randn(x0.shape, generator=generator, dtype=x0.dtype))


SAMPLERS: dict[str, Callable[..., SampleResult]] = {
    "eta1": lambda p, d, x, g: ancestral(p, d, x, ANCHOR, p.times(200), generator=g),
    "eta0.5": lambda p, d, x, g: ancestral(p, d, x, ANCHOR, p.times(200), eta=0.5, generator=g),
    "forward": lambda p, d, x, g: ancestral(p, d, x, ANCHOR, p.times(200), variance="forward", generator=g),
    "ddim": lambda p, d, x, g: ancestral(p, d, x, ANCHOR, p.times(200), eta=0.0),
    "flow": lambda p, d, x, g: probability_flow(p, d, x, ANCHOR, p.times(199, last=p.end / 200)),
    "dopri5": lambda p, d, x, g: probability_flow(
        p, d, x, ANCHOR, [p.end, p.end / 200], solver="dopri5", rtol=1e-4, atol=1e-4
    ),
    "sde": lambda p, d, x, g: reverse_sde(p, d, x, ANCHOR, p.times(200), generator=g),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_an_exact_gaussian_comes_back(path: AnchoredPath, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = at_the_end(path, PRIOR, 4_000, generator)
    x = SAMPLERS[name](path, exact(path, PRIOR), x, generator).image
    assert_allclose(x.mean(0), PRIOR.means[0], atol=0.03)
    assert_allclose(x.T.cov(), PRIOR.covariances[0], atol=0.03)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_mixture_comes_back(name: str) -> None:
    generator, path = torch.Generator().manual_seed(0), PATHS["continuous"]
    x = SAMPLERS[name](path, exact(path, MIXTURE), at_the_end(path, MIXTURE, 4_000, generator), generator).image
    right = x[:, 0] > 0
    assert right.double().mean().item() == pytest.approx(0.75, abs=0.03)
    for side, mean in ((~right, MIXTURE.means[0]), (right, MIXTURE.means[1])):
        assert_allclose(x[side].mean(0), mean, atol=0.02)
        assert_allclose(x[side].T.cov(), 0.02 * np.eye(2), atol=0.004)


def exact_flow(path: AnchoredPath, x: Tensor, t: float, s: float) -> Tensor:
    """The probability flow of a Gaussian in one dimension keeps the number of standard deviations."""
    m, v = PRIOR.means[0, :1], PRIOR.covariances[0, 0, 0]

    def moments(u: float) -> tuple[Tensor, Tensor]:
        mean, std = path.marginal(m, ANCHOR[:1], u)
        return mean, (path.signal(u) ** 2 * v + std**2).sqrt()

    (mean_t, std_t), (mean_s, std_s) = moments(t), moments(s)
    return mean_s + std_s * (x - mean_t) / std_t


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4), ("ddim", 1)])
def test_order_of_convergence(solver: str, order: int) -> None:
    path, prior = PATHS["continuous"], gaussian(PRIOR.means[0, :1], PRIOR.covariances[0, :1, :1])
    x = torch.tensor([[1.0], [-0.4]], dtype=torch.float64)
    goal = exact_flow(path, x, 1.0, 0.1)

    def error(steps: int) -> float:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return prior.posterior_mean(path, x, ANCHOR[:1], t)

        times = path.times(steps, last=0.1)
        if solver == "ddim":
            end = ancestral(path, denoise, x, ANCHOR[:1], times, eta=0.0)
        else:
            end = probability_flow(path, denoise, x, ANCHOR[:1], times, solver=solver)
            assert end.nfe == steps * order
        return (end.image - goal).abs().max().item()

    coarse, fine = error(40), error(80)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25)


class Counted:
    """A denoiser that counts its calls and remembers their times."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor]):
        self.denoise, self.times = denoise, []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1] and t.dtype == x.dtype and bool((t == t[0]).all())
        self.times.append(float(t[0]))
        return self.denoise(x, t)


@pytest.mark.arithmetic
def test_dopri5_meets_its_tolerance_and_counts_every_call() -> None:
    path, prior = PATHS["continuous"], gaussian(PRIOR.means[0, :1], PRIOR.covariances[0, :1, :1])
    x, errors, counts = torch.tensor([[1.0], [-0.4]], dtype=torch.float64), [], []
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        denoise = Counted(lambda x, t: prior.posterior_mean(path, x, ANCHOR[:1], t[0]))
        end = probability_flow(
            path, denoise, x, ANCHOR[:1], [1.0, 0.01], solver="dopri5", rtol=tolerance, atol=tolerance
        )
        assert end.nfe == len(denoise.times) and end.trajectory == [] and end.times == []
        assert min(denoise.times) == pytest.approx(0.01) and max(denoise.times) == 1.0  # it never leaves the interval
        errors.append((end.image - exact_flow(path, x, 1.0, 0.01)).abs().max().item())
        counts.append(end.nfe)
        assert errors[-1] < 20 * tolerance
    assert sorted(set(counts)) == counts and counts[0] < 60
    assert all(later < earlier / 10 for earlier, later in pairwise(errors))


@pytest.mark.parametrize(  # on discrete paths the kinks of the rates bound what the tolerance can do
    ("name", "dtype", "tolerance"),
    [
        ("continuous", torch.float64, 3e-4),
        ("continuous", torch.float32, 3e-4),
        ("ddpm", torch.float32, 8e-3),
        ("resshift", torch.float64, 8e-3),
    ],
)
def test_dopri5_equals_rk4_with_many_steps(name: str, dtype: torch.dtype, tolerance: float) -> None:
    path = PATHS[name]
    x, last = at_the_end(path, MIXTURE, 16, torch.Generator().manual_seed(0)), path.end / 50

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return exact(path, MIXTURE)(x.double(), t.double()).to(x)

    fine = probability_flow(path, denoise, x, ANCHOR, path.times(196, last=last), solver="rk4").image
    adaptive = probability_flow(
        path, denoise, x.to(dtype), ANCHOR.to(dtype), [path.end, last], solver="dopri5", rtol=1e-5, atol=1e-5
    )
    assert adaptive.image.dtype == dtype
    assert_allclose(adaptive.image, fine, atol=tolerance)


def test_dopri5_keeps_the_states_at_the_given_times() -> None:
    path, prior = PATHS["continuous"], gaussian(PRIOR.means[0, :1], PRIOR.covariances[0, :1, :1])
    x, times = torch.tensor([[1.0], [-0.4]], dtype=torch.float64), [1.0, 0.83, 0.4, 0.35, 0.1]

    def run(times: list[float], keep: bool) -> SampleResult:
        denoise = Counted(lambda x, t: prior.posterior_mean(path, x, ANCHOR[:1], t[0]))
        return probability_flow(path, denoise, x, ANCHOR[:1], times, solver="dopri5", rtol=1e-7, atol=1e-7, keep=keep)

    kept = run(times, keep=True)
    assert kept.times == times and identical(kept.trajectory[0], x) and identical(kept.trajectory[-1], kept.image)
    for t, state in zip(times, kept.trajectory, strict=True):
        assert_allclose(state, exact_flow(path, x, 1.0, t), atol=1e-5)
    plain = run([1.0, 0.1], keep=False)  # the times between do not change the steps
    assert_allclose(plain.image, kept.image, rtol=1e-12)
    assert plain.nfe == kept.nfe


def test_forward_variance_is_that_of_the_way_out() -> None:
    """DDPM's second choice: sqrt(beta_t) in whole steps, for every path the marginal variance minus what is kept."""
    betas = linear_betas(200, 1e-4, 0.08)
    x = torch.full((1, 2), 0.4, dtype=torch.float64)

    def fresh(path: AnchoredPath, t: float, s: float) -> Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        generator = torch.Generator().manual_seed(0)
        end = ancestral(path, lambda x, t: 0.5 * x, x, ANCHOR, [t, s], variance="forward", generator=generator).image
        return (end - path.posterior(x, 0.5 * x, ANCHOR, t, s)[0]) / noise

    for t in (2, 100, 200):
        assert_allclose(fresh(PATHS["ddpm"], t, t - 1), 0.5 * betas[t - 1].sqrt().expand(1, 2), rtol=1e-9)
    for path in PATHS.values():
        t, s = 0.75 * path.end, 0.5 * path.end
        variance = path.level(t) ** 2 - (path.transition(t, s) * path.level(s)) ** 2
        assert_allclose(fresh(path, t, s), path.sigma * variance.sqrt().expand(1, 2), rtol=1e-9)
    generator = torch.Generator().manual_seed(0)
    last = ancestral(PATHS["ddpm"], lambda x, t: 0.5 * x, x, ANCHOR, [1, 0], variance="forward", generator=generator)
    assert_allclose(last.image, 0.5 * x, rtol=1e-12)  # nothing fresh in the last step


@pytest.mark.parametrize(("solver", "tolerance"), [("euler", 0.02), ("heun", 2e-4), ("rk4", 1e-6)])
@pytest.mark.parametrize("name", ["ddpm", "resshift", "irsde"])
def test_whole_times_keep_the_order_on_discrete_paths(name: str, solver: str, tolerance: float) -> None:
    """The rates jump between steps; the end of a step must not see those of the next."""
    path, prior = PATHS[name], gaussian(PRIOR.means[0, :1], PRIOR.covariances[0, :1, :1])
    x = torch.tensor([[1.0], [-0.4]], dtype=torch.float64)
    end = probability_flow(
        path,
        lambda x, t: prior.posterior_mean(path, x, ANCHOR[:1], t[0]),
        x,
        ANCHOR[:1],
        path.times(180, last=20),
        solver=solver,
    )
    assert (end.image - exact_flow(path, x, 200, 20)).abs().max() < tolerance


@pytest.mark.arithmetic
def test_released_resshift_loop(vectors: Path) -> None:
    """The stochastic 4-step loop with the toy network; the noise of each call is the stored one."""
    with np.load(vectors / "resshift_steps.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    path = ResidualShift(resshift_sqrt_etas(4, min_noise_level=0.2))
    y = stored["train/z_y_bicubic_x4_of_lr"]
    x = path.start(y, stored["noise"])
    for step, t in enumerate((4, 3, 2, 1)):
        scaled = x / (1 + path.sigma**2 * path.level(t) ** 2).sqrt()
        x0 = conv2d(torch.cat([scaled, stored["train/lq_cond"]], 1), stored["toy/w"], stored["toy/b"], padding=1)
        mean, std = path.posterior(x, x0 + 0.01 * (t - 1), y, t, t - 1)
        x = mean + std * stored["loop_v3_T4/step_noises"][step]
        assert_allclose(x, stored["loop_v3_T4/traj"][step], rtol=1e-8, atol=2e-9)  # its input scale is float32


@pytest.mark.arithmetic
@pytest.mark.parametrize("t", [2, 50, 100])
def test_euler_maruyama_is_irsdes(vectors: Path, t: int) -> None:
    with np.load(vectors / "irsde.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    key = f"f64/cosine_T100_s30_eps0.005/t{t}"
    path = MeanReverting(mean_reverting_thetas(100))
    x0 = stored[f"{key}/x0_from_noise"]
    mean, std = euler_maruyama(path, stored["x_t"], x0, stored["mu"], t, t - 1)
    assert_allclose(mean, stored[f"{key}/reverse_sde_mean"], rtol=1e-9, atol=1e-9)
    assert_allclose(mean - std * stored["z"], stored[f"{key}/reverse_sde"], rtol=1e-9, atol=1e-9)
    flow, still = euler_maruyama(path, stored["x_t"], x0, stored["mu"], t, t - 1, eta=0.0)
    assert_allclose(flow, stored[f"{key}/reverse_ode"], rtol=1e-9, atol=1e-9)
    assert still == 0


@pytest.mark.arithmetic
def test_trajectory_seeds_and_counts() -> None:
    path = PATHS["ddpm"]
    x = torch.full((3, 2), 0.4, dtype=torch.float64)
    seen: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return 0.5 * x

    def run(seed: int, keep: bool = True) -> SampleResult:
        return ancestral(
            path, denoise, x, ANCHOR, path.times(4), generator=torch.Generator().manual_seed(seed), keep=keep
        )

    result = run(0)
    assert result.nfe == 4 and result.times == [200, 150, 100, 50, 0] and len(result.trajectory) == 5
    assert identical(result.trajectory[0], x) and identical(result.trajectory[-1], result.image)
    assert [t.tolist() for t in seen] == [[200.0] * 3, [150.0] * 3, [100.0] * 3, [50.0] * 3]
    assert_allclose(result.image, 0.5 * result.trajectory[-2], rtol=1e-12)  # the last step returns the prediction
    assert_repeats(result.image, run(0).image, run(1).image)
    assert run(0, keep=False).trajectory == [] and run(0, keep=False).times == []


def test_deterministic_samplers_draw_nothing() -> None:
    path, generator = PATHS["continuous"], torch.Generator().manual_seed(0)
    before = generator.get_state()
    x = torch.ones(1, 2, dtype=torch.float64)
    ancestral(path, lambda x, t: x, x, ANCHOR, path.times(3), eta=0.0, generator=generator)
    flow = reverse_sde(path, lambda x, t: x, x, ANCHOR, [1.0, 0.8, 0.6], eta=0.0, generator=generator)
    assert identical(before, generator.get_state())
    euler = probability_flow(path, lambda x, t: x, x, ANCHOR, [1.0, 0.8, 0.6], solver="euler")
    assert_allclose(flow.image, euler.image, rtol=1e-12)


def test_gradients_flow_to_the_start() -> None:
    path, x = PATHS["continuous"], torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    probability_flow(path, exact(path, PRIOR), x, ANCHOR, path.times(5, last=0.1)).image.sum().backward()
    assert bool((x.grad.abs() > 0).all())


def test_gradients_flow_through_dopri5() -> None:
    """The flow of a Gaussian is linear in its start: its derivative is the ratio of the standard deviations."""
    path, prior = PATHS["continuous"], gaussian(PRIOR.means[0, :1], PRIOR.covariances[0, :1, :1])
    x = torch.tensor([[1.0], [-0.4]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    slope = exact_flow(path, one, 1.0, 0.1) - exact_flow(path, 0 * one, 1.0, 0.1)
    end = probability_flow(
        path,
        lambda x, t: prior.posterior_mean(path, x, ANCHOR[:1], t[0]),
        x,
        ANCHOR[:1],
        [1.0, 0.1],
        solver="dopri5",
        rtol=1e-8,
        atol=1e-8,
    )
    end.image.sum().backward()
    assert_allclose(x.grad, slope.expand(2, 1), rtol=1e-5)


X = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, d: ancestral(p, d, X, X, [1.0]), r"at least two, got \[1.0\]"),
        (lambda p, d: ancestral(p, d, X, X, [0.2, 0.5]), "times must fall"),
        (lambda p, d: ancestral(p, d, X, X, [2.0, 0.5]), r"lie in \[0, 1.0\], got 2.0"),
        (lambda p, d: ancestral(p, d, X, X, [0.5, -0.1]), "got 0.5 down to -0.1"),
        (lambda p, d: ancestral(p, d, X, X, [1.0, 0.5], eta=2.0), r"eta must lie in \[0, 1\], got 2.0"),
        (lambda p, d: reverse_sde(p, d, X, X, [1.0, 0.5], eta=-1.0), r"eta must lie in \[0, 1\], got -1.0"),
        (lambda p, d: probability_flow(p, d, X, X, [1.0, 0.0]), "stop at a time above 0, got 0.0"),
        (lambda p, d: probability_flow(p, d, X, X, []), "at least two"),
        (
            lambda p, d: probability_flow(p, d, X, X, [1.0, 0.5], solver="rk45"),
            "one of euler, heun, rk4, dopri5, got 'rk45'",
        ),
        (lambda p, d: probability_flow(p, d, X, X, [1.0, 0.0], solver="dopri5"), "stop at a time above 0, got 0.0"),
        (lambda p, d: probability_flow(p, d, X, X, [0.5, 1.0], solver="dopri5"), "times must fall"),
        (lambda p, d: probability_flow(p, d, X, X, [1.0, 0.5], solver="dopri5", rtol=0.0), "positive, got rtol=0.0"),
        (lambda p, d: probability_flow(p, d, X, X, [1.0, 0.5], solver="dopri5", atol=-1.0), "and atol=-1.0"),
        (
            lambda p, d: probability_flow(p, lambda x, t: x / 0, X, X, [1.0, 0.5], solver="dopri5"),
            r"gave up after \d+ evaluations with rtol=0.001, atol=0.001 in torch.float32",
        ),
        (lambda p, d: ancestral(p, d, X, X, [1.0, 0.5], variance="large"), "one of posterior, forward, got 'large'"),
        (lambda p, d: ancestral(p, d, X, X, [1.0, 0.5], eta=0.5, variance="forward"), "needs eta = 1, got eta = 0.5"),
        (lambda p, d: reverse_sde(ResidualShift(torch.tensor([0.5]), 0.0), d, X, X, [1, 0]), "sigma = 0"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PATHS["continuous"], lambda x, t: x)
