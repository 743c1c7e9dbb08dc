"""Readings of predictions: round trips, the released ECDP drift, and what the hybrid is."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from srbook.parametrizations import Kind, hybrid, target, to_noise, to_x0
from srbook.paths import AnchoredPath, ContinuousVP, DiscreteVP, MeanReverting, ResidualShift
from srbook.schedules import cosine_betas, linear_betas, mean_reverting_thetas, resshift_sqrt_etas

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
PATHS: list[AnchoredPath] = [
    DiscreteVP(linear_betas(50), sigma=0.5),
    DiscreteVP(cosine_betas(20), sigma=0.25),
    ContinuousVP(sigma=0.2),
    ResidualShift(resshift_sqrt_etas(15)),
    MeanReverting(mean_reverting_thetas(30)),
]


def draw(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_round_trip(path: AnchoredPath, kind: Kind) -> None:
    x0, anchor, noise = draw(0), draw(1), draw(2)
    t = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64) * path.end
    x_t = path.perturb(x0, anchor, t, noise)
    output = target(path, kind, x0, noise, anchor, t)
    assert_allclose(to_x0(path, kind, output, x_t, anchor, t), x0, **TIGHT)
    assert_allclose(to_noise(path, kind, output, x_t, anchor, t), noise, **TIGHT)


@pytest.mark.parametrize("path", PATHS)
def test_score_is_the_gradient_of_the_log_density(path: AnchoredPath) -> None:
    x0, anchor, noise, t = draw(0), draw(1), draw(2), 0.6 * path.end
    mean, std = path.marginal(x0, anchor, t)
    x_t = (mean + std * noise).requires_grad_()
    log_density = torch.distributions.Normal(mean, std.expand_as(mean)).log_prob(x_t).sum()
    (gradient,) = torch.autograd.grad(log_density, x_t)
    assert_allclose(target(path, "score", x0, noise, anchor, t), gradient, **TIGHT)


def test_values_by_hand() -> None:
    path = ResidualShift(torch.tensor([0.5, 0.8], dtype=torch.float64), kappa=2.0)  # a = 0.75, s = 0.5 at t = 1
    x0, anchor, noise = (torch.full((1, 1), value, dtype=torch.float64) for value in (3.0, 1.0, 0.4))
    assert target(path, "v", x0, noise, anchor, 1).item() == pytest.approx(0.75 * 0.4 - 0.5 * (3 - 1) / 2)
    assert target(path, "score", x0, noise, anchor, 1).item() == pytest.approx(-0.4)
    assert target(path, "residual", x0, noise, anchor, 1).item() == -2


def test_hybrid_is_ecdps_drift(vectors: Path) -> None:
    """The released drift in z = 5 (x - anchor), at scale 1: dz/dt = -beta/2 (z + score)."""
    with np.load(vectors / "ecdp_pf_drift.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    path, anchor = ContinuousVP(), torch.zeros((), dtype=torch.float64)
    z = stored["z_t"]
    for index, tau in enumerate((stored["t_index"] / 300).tolist()):
        image, noise = hybrid(path, stored["eps_head"], stored["x0_head"], z, anchor, tau)
        assert_allclose(noise, stored["hybrid_eps"][index], rtol=1e-9, atol=1e-10)
        assert_allclose(path.velocity(z, image, anchor, tau), stored["drift_per_tau"][index], rtol=1e-9, atol=1e-10)


def test_hybrid_is_v_prediction_from_two_heads() -> None:
    path, t = ContinuousVP(sigma=0.2), torch.tensor([0.02, 0.4, 1.0], dtype=torch.float64)
    x_t, anchor, noise, x0 = draw(0), draw(1), draw(2), draw(3)
    v = target(path, "v", x0, noise, anchor, t)
    image, blend = hybrid(path, noise, x0, x_t, anchor, t)
    assert_allclose(image, to_x0(path, "v", v, x_t, anchor, t), **TIGHT)
    assert_allclose(blend, to_noise(path, "v", v, x_t, anchor, t), **TIGHT)


def test_weights_zero_and_one_are_the_heads_alone() -> None:
    path, t = ContinuousVP(sigma=0.2), 0.3
    x_t, anchor, noise, x0 = draw(0), draw(1), draw(2), draw(3)
    assert_allclose(hybrid(path, noise, x0, x_t, anchor, t, weight=1.0)[1], noise, **TIGHT)
    assert_allclose(hybrid(path, noise, x0, x_t, anchor, t, weight=0.0)[0], x0, **TIGHT)
    shares = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    image, _ = hybrid(path, noise, x0, x_t, anchor, t, weight=shares)
    assert_allclose(image[0], x0[0], **TIGHT)
    assert_allclose(image[2], 0.25 * to_x0(path, "eps", noise, x_t, anchor, t)[2] + 0.75 * x0[2], **TIGHT)


def test_resshift_noise_from_x0(vectors: Path) -> None:
    with np.load(vectors / "resshift_steps.npz") as file:
        stored = {key: torch.from_numpy(file[key]) for key in file}
    path = ResidualShift(resshift_sqrt_etas(15))
    for slot in (0, 1, 14):
        key = f"v1_T15/t{slot}/f64"
        noise = to_noise(path, "x0", stored["x0"], stored[f"{key}/q_sample"], stored["y"], slot + 1)
        assert_allclose(noise, stored[f"{key}/eps_from_x0"], **TIGHT)


def test_refusals() -> None:
    x, still = draw(0), ResidualShift(resshift_sqrt_etas(4), kappa=0.0)
    with pytest.raises(ValueError, match="kind must be one of eps, x0, v, score, residual, hybrid, got 'flow'"):
        to_x0(PATHS[0], "flow", x, x, x, 1)
    for kind in ("eps", "v", "score"):
        with pytest.raises(ValueError, match=f"sigma = 0 has no noise, so '{kind}' means nothing"):
            target(still, kind, x, x, x, 1)
    with pytest.raises(ValueError, match="no noise to predict; read the prediction with to_x0"):
        to_noise(still, "x0", x, x, x, 1)
    assert_allclose(to_x0(still, "residual", x, x, x, 1), torch.zeros_like(x), **TIGHT)
    with pytest.raises(ValueError, match=r"\(N,\) = \(3,\), got \(2,\)"):
        hybrid(PATHS[2], x, x, x, x, 0.5, weight=torch.ones(2))
