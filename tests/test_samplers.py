"""Samplers against exact Gaussians and mixtures, the released loops, and the order of the solvers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor
from torch.nn.functional import conv2d

from srbook.exact import GaussianMixture, gaussian
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.samplers import SampleResult, ancestral, euler_maruyama, probability_flow, reverse_sde
from srbook.schedules import linear_betas, mean_reverting_thetas, resshift_sqrt_etas

PATHS: dict[str, AnchoredPath] = {
    "ddpm": DiscreteVP(linear_betas(200, 1e-4, 0.08), scale=0.5),
    "continuous": ContinuousVP(scale=0.5),
    "resshift": ResidualShift(resshift_sqrt_etas(200, power=0.5, sqrt_eta_end=0.999)),
    "irsde": MeanReverting(mean_reverting_thetas(200), scale=0.5),
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
    "ddim": lambda p, d, x, g: ancestral(p, d, x, ANCHOR, p.times(200), eta=0.0),
    "flow": lambda p, d, x, g: probability_flow(p, d, x, ANCHOR, p.times(199, last=p.end / 200)),
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


def test_released_resshift_loop(vectors: Path) -> None:
    """The stochastic 4-step loop with the toy network; the noise of each call is the stored one."""
    with np.load(vectors / "resshift_steps.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    path = ResidualShift(resshift_sqrt_etas(4, min_noise_level=0.2))
    y = stored["train/z_y_bicubic_x4_of_lr"]
    x = path.start(y, stored["noise"])
    for step, t in enumerate((4, 3, 2, 1)):
        scaled = x / (1 + path.scale**2 * path.noise(t) ** 2).sqrt()
        x0 = conv2d(torch.cat([scaled, stored["train/lq_cond"]], 1), stored["toy/w"], stored["toy/b"], padding=1)
        mean, std = path.posterior(x, x0 + 0.01 * (t - 1), y, t, t - 1)
        x = mean + std * stored["loop_v3_T4/step_noises"][step]
        assert_allclose(x, stored["loop_v3_T4/traj"][step], rtol=1e-8, atol=2e-9)  # its input scale is float32


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
    assert torch.equal(result.trajectory[0], x) and torch.equal(result.trajectory[-1], result.image)
    assert [t.tolist() for t in seen] == [[200.0] * 3, [150.0] * 3, [100.0] * 3, [50.0] * 3]
    assert_allclose(result.image, 0.5 * result.trajectory[-2], rtol=1e-12)  # the last step returns the prediction
    assert torch.equal(run(0).image, result.image) and not torch.equal(run(1).image, result.image)
    assert run(0, keep=False).trajectory == [] and run(0, keep=False).times == []


def test_deterministic_samplers_draw_nothing() -> None:
    path, generator = PATHS["continuous"], torch.Generator().manual_seed(0)
    before = generator.get_state()
    x = torch.ones(1, 2, dtype=torch.float64)
    ancestral(path, lambda x, t: x, x, ANCHOR, path.times(3), eta=0.0, generator=generator)
    flow = reverse_sde(path, lambda x, t: x, x, ANCHOR, [1.0, 0.8, 0.6], eta=0.0, generator=generator)
    assert torch.equal(before, generator.get_state())
    euler = probability_flow(path, lambda x, t: x, x, ANCHOR, [1.0, 0.8, 0.6], solver="euler")
    assert_allclose(flow.image, euler.image, rtol=1e-12)


def test_gradients_flow_to_the_start() -> None:
    path, x = PATHS["continuous"], torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    probability_flow(path, exact(path, PRIOR), x, ANCHOR, path.times(5, last=0.1)).image.sum().backward()
    assert bool((x.grad.abs() > 0).all())


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
        (lambda p, d: probability_flow(p, d, X, X, [1.0, 0.5], solver="dopri5"), "one of euler, heun, rk4"),
        (lambda p, d: reverse_sde(ResidualShift(torch.tensor([0.5]), 0.0), d, X, X, [1, 0]), "scale 0"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(PATHS["continuous"], lambda x, t: x)
