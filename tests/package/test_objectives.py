"""Training objectives: how times are drawn, and the losses of the released programs by value."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from rounding import assert_repeats
from torch import Tensor

from srbook.objectives import denoising_losses, draw_between_steps, draw_steps, time_of_signal
from srbook.parametrizations import Kind, target, to_noise
from srbook.paths import ContinuousVP, DiscreteVP
from srbook.schedules import linear_betas

VECTORS = Path(__file__).parents[1] / "vectors"
PATH = DiscreteVP(linear_betas(2000, 1e-6, 1e-2), 0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_steps_are_uniform_over_all_whole_times():
    path = DiscreteVP(linear_betas(7))
    t = draw_steps(path, 70_000, generator())
    assert t.dtype == torch.float64
    counts = torch.bincount(t.long(), minlength=8)
    assert counts[0] == 0 and len(counts) == 8
    assert (counts[1:] / 10_000 - 1).abs().max() < 0.05  # five standard deviations


@pytest.mark.parametrize("uniform_in", ["signal", "power"])
def test_levels_are_uniform_within_each_step(uniform_in: str):
    path = DiscreteVP(linear_betas(3, 0.2, 0.8))
    t = draw_between_steps(path, 60_000, uniform_in=uniform_in, generator=generator())
    level = path.signal(t) if uniform_in == "signal" else path.signal(t).square()
    ends = path.signal(torch.arange(4.0)) if uniform_in == "signal" else path.signal(torch.arange(4.0)).square()
    for step in (1, 2, 3):
        inside = level[(t > step - 1) & (t <= step)]
        share = ((inside - ends[step]) / (ends[step - 1] - ends[step])).sort().values
        assert len(inside) == pytest.approx(20_000, rel=0.05)
        expected = (torch.arange(len(share)) + 0.5) / len(share)
        assert (share - expected).abs().max() < 1.95 / math.sqrt(len(share))  # Kolmogorov-Smirnov, p = 0.001


def test_the_time_of_a_level_is_where_the_path_has_it():
    steps = torch.tensor([1.0, 2.0, 700.0, 2000.0], dtype=torch.float64)
    for share in (0.0, 0.3, 1.0):
        wanted = torch.lerp(PATH.signal(steps - 1), PATH.signal(steps), share)
        t = time_of_signal(PATH, steps, wanted.log())
        assert ((t >= steps - 1) & (t <= steps)).all()
        torch.testing.assert_close(PATH.signal(t), wanted, rtol=1e-12, atol=0)


def test_draws_repeat_with_their_generator():
    assert_repeats(*(draw_between_steps(PATH, 5, generator=generator(seed)) for seed in (3, 3, 4)))
    assert_repeats(*(draw_steps(PATH, 5, generator(seed)) for seed in (3, 3, 4)))


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="uniform_in must be one of signal, power, got 'beta'"):
        draw_between_steps(PATH, 1, uniform_in="beta")
    x = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="distance must be one of l1, l2, got 'l3'"):
        denoising_losses(PATH, "eps", lambda x_t, t: x_t, x, x, torch.ones(1), x, "l3")
    with pytest.raises(ValueError, match="kind must be one of eps, x0, v, score, residual, hybrid, got 'noise'"):
        denoising_losses(PATH, "noise", lambda x_t, t: x_t, x, x, torch.ones(1), x)
    with pytest.raises(ValueError, match='errors of the score are known for "eps" and "hybrid", got \'v\''):
        denoising_losses(PATH, "v", lambda x_t, t: x_t, x, x, torch.ones(1), x, by_score=True)


def test_the_loss_is_a_mean_over_values():
    """With a network that answers zero, "l2" is the mean square of the noise and "l1" its mean magnitude."""
    noise = torch.randn(2, 3, 5, 7, generator=generator())
    x0, t = torch.rand(2, 3, 5, 7, generator=generator(1)), torch.tensor([3.0, 900.0])

    def silent(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x_t)

    squared, absolute = (denoising_losses(PATH, "eps", silent, x0, x0, t, noise, name) for name in ("l2", "l1"))
    assert squared["loss"].item() == pytest.approx(noise.square().mean().item())
    assert absolute["loss"].item() == pytest.approx(noise.abs().mean().item())


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_network_that_knows_its_target_pays_nothing(kind: str):
    path = ContinuousVP(sigma=0.2)
    x0, anchor, noise = (torch.randn(4, 3, 2, 2, generator=generator(k), dtype=torch.float64) for k in range(3))
    t = torch.tensor([0.01, 0.2, 0.6, 1.0], dtype=torch.float64)

    def oracle(x_t: Tensor, t: Tensor) -> Tensor:
        return target(path, kind, x0, to_noise(path, "x0", x0, x_t, anchor, t), anchor, t)

    assert denoising_losses(path, kind, oracle, x0, anchor, t, noise)["loss"].item() < 1e-20


@pytest.mark.parametrize("method", ["sr3", "resdiff", "ddpm", "esrdf"])
def test_losses_of_the_released_programs(method: str):
    """Noisy network inputs, noise levels, and losses (their sum) at the released draws of t."""
    released = np.load(VECTORS / "losses_sr3_resdiff_ddpm_esrdf.npz")
    hr, sr, noise, prediction = (torch.from_numpy(released[name]) for name in ("hr", "sr", "noise", "eps_pred"))
    betas = {"sr3": (2000, 1e-6, 1e-2), "resdiff": (1000, 1e-6, 1e-2), "ddpm": (2000, 1e-4, 0.02)}
    path = DiscreteVP(linear_betas(*betas.get(method, (200, 1e-6, 1e-2))), 0.5)
    x0, upscaled = (hr + 1) / 2, (sr + 1) / 2
    anchor = upscaled if method in ("resdiff", "esrdf") else torch.tensor(0.5, dtype=torch.float64)
    if method in ("sr3", "resdiff"):
        level = torch.from_numpy(released[f"{method}_sqrt_gamma"])[:, 0]
        step = torch.stack([(path.signal(torch.arange(int(path.end) + 1)) >= a).sum() for a in level])
        t = time_of_signal(path, step.double(), level.log())
        torch.testing.assert_close(path.signal(t), level, rtol=1e-10, atol=0)
    else:
        t = torch.from_numpy(released[f"{method}_t"]).double() + 1
    seen = []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(path.normalized(x_t, anchor))
        return prediction

    loss = denoising_losses(path, "eps", predict, x0, anchor, t, noise, "l1")["loss"]
    torch.testing.assert_close(seen[0], torch.from_numpy(released[f"{method}_net_input"])[:, 3:], rtol=0, atol=1e-10)
    assert loss.item() * hr.numel() == pytest.approx(released[f"{method}_loss_sum"].item(), abs=1e-10)
