"""Schedules against the tables of the released programs, and their refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from srbook.schedules import (
    cosine_betas,
    linear_betas,
    mean_reverting_thetas,
    resshift_sqrt_etas,
    vp_beta,
    vp_decay,
)

TIGHT = {"rtol": 1e-10, "atol": 1e-13}


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("psample_ddpm_ho_T1000", (1000, 1e-4, 0.02)),
        ("psample_ddpm_repo_T2000", (2000, 1e-4, 0.02)),
        ("psample_resdiff_T1000", (1000, 1e-6, 1e-2)),
        ("psample_esrdf_T200", (200, 1e-6, 1e-2)),
    ],
)
def test_linear_betas_equal_the_released_ones(vectors: Path, file: str, arguments: tuple) -> None:
    stored = np.load(vectors / f"{file}.npz")
    betas = linear_betas(*arguments)
    assert betas.dtype == torch.float64
    assert_allclose(betas, stored["betas"], **TIGHT)
    assert_allclose(torch.cumprod(1 - betas, 0), stored["alphas_cumprod"], **TIGHT)


@pytest.mark.parametrize(("steps", "left"), [(2000, 4.386e-5), (500, 0.0814), (200, 0.3666)])
def test_signal_left_by_the_slow_betas(steps: int, left: float) -> None:
    """SR3 runs out of signal; ESRDF's 200 and 500 steps of the same range do not."""
    assert torch.prod(1 - linear_betas(steps, 1e-6, 1e-2)).item() == pytest.approx(left, rel=1e-3)


def test_default_betas_of_fifty_steps(vectors: Path) -> None:
    stored = np.load(vectors / "beta_schedules_T50.npz")
    assert_allclose(linear_betas(50), stored["linear"], **TIGHT)
    assert_allclose(cosine_betas(50), stored["cosine"], **TIGHT)


def test_cosine_betas_equal_srdiffs(vectors: Path) -> None:
    stored = np.load(vectors / "psample_srdiff_T100.npz")
    betas = cosine_betas(100)
    assert_allclose(betas, stored["betas"], **TIGHT)
    assert_allclose(torch.cumprod(1 - betas, 0), stored["alphas_cumprod"], **TIGHT)
    assert betas[-1] == 0.999 and betas[-2] < 0.999  # only the last one is capped


def test_resshift_tables_equal_the_released_ones(vectors: Path) -> None:
    stored = json.loads((vectors / "resshift_schedules.json").read_text())
    computed = {name: entry for name, entry in stored.items() if "config" in entry}
    assert len(computed) == 16
    for name, entry in computed.items():
        config = dict(entry["config"])
        config["sqrt_eta_end"] = config.pop("etas_end")
        assert_allclose(resshift_sqrt_etas(**config), entry["sqrt_etas"], err_msg=name, **TIGHT)
    kept = resshift_sqrt_etas(15)[::3]  # the released way to 5 of 15 steps
    assert_allclose(kept, stored["v1_T15_respaced_to_5"]["sqrt_etas"], **TIGHT)


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("steps", "end", "name"), [(100, 0.005, "T100_s30_eps0.005"), (20, 0.01, "T20_s10_eps0.01")])
def test_thetas_equal_irsdes(vectors: Path, shape: str, steps: int, end: float, name: str) -> None:
    stored = np.load(vectors / "irsde.npz")
    key = f"f64/{shape}_{name}"
    thetas = mean_reverting_thetas(steps, shape, end)
    dt = stored[f"{key}/dt"]
    assert_allclose(thetas, stored[f"{key}/thetas"][1:] * dt, **TIGHT)
    assert_allclose(torch.cumsum(thetas, 0), stored[f"{key}/thetas_cumsum"][1:] * dt, **TIGHT)
    assert thetas.sum().neg().exp().item() == pytest.approx(end, rel=1e-12)


def test_continuous_schedule_equals_ecdps(vectors: Path) -> None:
    stored = np.load(vectors / "ecdp_schedule.npz")
    tau = torch.from_numpy(stored["tau"])
    assert_allclose(vp_beta(tau), stored["beta"], **TIGHT)
    assert_allclose(torch.exp(-vp_decay(tau)), stored["alpha"], **TIGHT)
    assert_allclose(torch.exp(-2 * vp_decay(tau)), stored["alpha_bar"], **TIGHT)
    grid = torch.arange(1, 301, dtype=torch.float64) / 300
    assert_allclose(torch.exp(-2 * vp_decay(grid)), stored["disc_alpha_bars"], **TIGHT)


def test_vp_decay_is_half_the_integral_of_beta() -> None:
    t = torch.linspace(0, 1, 7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(vp_decay(t, 0.3, 7.0).sum(), t)
    assert_allclose(slope, vp_beta(t, 0.3, 7.0).detach() / 2, **TIGHT)
    assert vp_decay(torch.zeros(())) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_betas(0), "steps must be an integer of at least 1, got 0"),
        (lambda: linear_betas(2.5), "steps must be an integer"),
        (lambda: linear_betas(10, start=0.0), "start must lie strictly between 0 and 1, got 0.0"),
        (lambda: linear_betas(10, end=1.0), "end must lie strictly between 0 and 1, got 1.0"),
        (lambda: cosine_betas(10, s=-0.1), "s must not be negative, got -0.1"),
        (lambda: cosine_betas(10, max_beta=1.0), "max_beta must lie"),
        (lambda: resshift_sqrt_etas(1), "at least 2, got 1"),
        (lambda: resshift_sqrt_etas(4, kappa=0.0), "kappa must be positive, got 0.0"),
        (lambda: resshift_sqrt_etas(4, power=float("nan")), "power must be positive"),
        (lambda: resshift_sqrt_etas(4, sqrt_eta_end=0.01), "sqrt_eta_end must be above"),
        (lambda: resshift_sqrt_etas(4, sqrt_eta_end=1.5), "at most 1, got 1.5"),
        (lambda: mean_reverting_thetas(10, "square"), "one of cosine, linear, constant, got 'square'"),
        (lambda: mean_reverting_thetas(10, end=0.0), "end must lie"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
