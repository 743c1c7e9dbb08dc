"""Training objectives: which times of a path a training step draws, and the error of a prediction there."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_function, require_integer
from srbook.parametrizations import Kind, target
from srbook.paths import AnchoredPath, DiscreteVP, MeanReverting, Stepped, Time, broadcast, require_path
from srbook.random import require_generator

Distance = Literal["l1", "l2"]
Spacing = Literal["signal", "power"]


def draw_steps(
    path: AnchoredPath, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Times drawn uniformly from 1..T of a discrete path: (count,) whole numbers, float64.

    Args:
        path: a discrete path.
        generator: source of the randomness, drawn where it lives; None uses torch's global one.
        device: of the result.
    """
    require_path(path, Stepped)
    require_integer("count", count, 1)
    require_generator(generator)
    source = generator.device if generator is not None else device
    return torch.randint(1, int(path.end) + 1, (count,), generator=generator, device=source).double().to(device)


def draw_between_steps(
    path: DiscreteVP,
    count: int,
    *,
    uniform_in: Spacing = "signal",
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Times between the steps, so that a network meets every signal: SR3's draw (Saharia et al. 2021).

    A step t is uniform in 1..T. Then sqrt(abar) is uniform between those of t - 1 and t, as in the community's program
    ("signal"), or abar itself is, as in the paper ("power"). The result is the time in [0, T] at which the path has
    this signal, (count,) float64: abar falls exponentially within a step. Implements :eq:`eq-sr3-level`.

    Args:
        path, count, generator, device: as in `draw_steps`.
        uniform_in: what is uniform within a step; another word is a ValueError.
    """
    require_choice("uniform_in", uniform_in, Spacing)
    require_path(path, DiscreteVP | MeanReverting)
    require_generator(generator)
    source = generator.device if generator is not None else device
    after = draw_steps(path, count, generator, device)
    share = torch.rand(count, generator=generator, dtype=torch.float64, device=source).to(device)
    before = after - 1
    if uniform_in == "signal":
        log_signal = torch.lerp(path.signal(before), path.signal(after), share).log()
    else:
        log_signal = torch.lerp(path.signal(before).square(), path.signal(after).square(), share).log() / 2
    return time_of_signal(path, after, log_signal)


def time_of_signal(path: DiscreteVP, step: Tensor, log_signal: Tensor) -> Tensor:
    """The times in [step - 1, step] at which log a_t has given values.

    Args:
        step: (N,) the step, that is its last time, in 1..T.
        log_signal: (N,) log a_t, between its values at the ends of the step.
    """
    first, last = path.decay(step - 1), path.decay(step)
    return step - 1 + ((-log_signal - first) / (last - first)).clamp(0, 1)


def denoising_losses(
    path: AnchoredPath,
    kind: Kind,
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    anchor: Tensor,
    t: Tensor,
    noise: Tensor,
    distance: Distance = "l2",
    *,
    by_score: bool = False,
) -> dict[str, Tensor]:
    """The distance between a network's prediction in x_t and its target, the mean over all values.

    For "eps" with "l2" and times from `draw_steps` it implements :eq:`eq-simple-loss`, and for "hybrid"
    :eq:`eq-ecdp-loss`: the sum of the errors of both heads (Yuan and Yuan 2024). ECDP's program sums over the values of
    an image instead.

    Args:
        path: makes x_t.
        kind: what the network predicts, see `srbook.parametrizations`.
        predict: (x_t, t) to the prediction.
        x0: (N, ...) clean images in the space of the method.
        anchor: broadcastable to `x0`.
        t: (N,) times; above 0 if `by_score`.
        noise: standard normal, shaped like `x0`.
        distance: "l2", the squared error of DDPM, or "l1", the absolute error of SR3 and SRDiff.
        by_score: weigh the errors of "eps" or "hybrid" by `score_weights`, or by their square roots if absolute.

    Returns:
        "loss", a scalar of float32 or wider; for "hybrid" also its two parts, "noise" and "image".

    Raises:
        ValueError: unknown distance or kind, or a kind without weights of the score.
    """
    require_choice("distance", distance, Distance)
    require_function("predict", predict)
    if by_score and kind not in ("eps", "hybrid"):
        raise ValueError(f'errors of the score are known for "eps" and "hybrid", got {kind!r}')
    truth = target(path, kind, x0, noise, anchor, t)
    predicted = predict(path.perturb(x0, anchor, t, noise), t)
    if not isinstance(predicted, Tensor) or predicted.shape != truth.shape:
        given = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
        raise ValueError(f"predict must give a tensor of the shape {tuple(truth.shape)} for {kind!r}, got {given}")
    error = predicted.to(truth.dtype) - truth  # the network may compute in bfloat16, the error not
    errors = error.chunk(2, dim=1) if kind == "hybrid" else [error]
    if by_score:
        weights = score_weights(path, t)[: len(errors)]
        errors = [error * broadcast(weight.sqrt(), error) for error, weight in zip(errors, weights, strict=True)]
    losses = [error.square().mean() if distance == "l2" else error.abs().mean() for error in errors]
    if kind == "hybrid":
        return {"loss": losses[0] + losses[1], "noise": losses[0], "image": losses[1]}
    return {"loss": losses[0]}


def score_weights(path: AnchoredPath, t: Time) -> tuple[Tensor, Tensor]:
    """Weights that make squared errors of the noise and of z_0 into squared errors of the score, times sigma^2.

    A score from predicted noise is -noise / (sigma s_t); one from a predicted z_0 is (a_t z_0 - z_t) / (sigma s_t^2).
    So the weights are 1 / s^2 for the noise and a^2 / s^4 for z_0, float64 and shaped like `t`. Both grow without bound
    as t falls to 0. Implements :eq:`eq-ecdp-weights`.
    """
    a, s = path.signal(t), path.level(t)
    return 1 / s.square(), (a / s.square()).square()
