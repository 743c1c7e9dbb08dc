"""What a network may predict, and how to read every kind of prediction as a clean image or as noise.

With z = (x - anchor) / sigma, a path says z_t = a_t z_0 + s_t noise. A network may predict

* "eps": the noise;
* "x0": the clean image, in the space of the method;
* "v": a_t noise - s_t z_0 (Salimans and Ho 2022);
* "score": the gradient of log p(x_t | x_0) by x_t, which is -noise / (sigma s_t);
* "residual": anchor - x_0 (ResShift's residual);
* "hybrid": the noise and z_0, side by side in the channels (ECDP's two heads).

`target` gives what the network should predict; `to_x0` and `to_noise` read what it predicted. Each reading is direct,
so none loses digits by going through another kind. An unknown kind is a ValueError, and so is one that needs noise on a
path without any.
"""

from typing import Literal

import torch
from torch import Tensor

from srbook.arguments import require_choice, require_numbers
from srbook.images import require_floats
from srbook.paths import AnchoredPath, Time, broadcast, require_fitting, require_path

Kind = Literal["eps", "x0", "v", "score", "residual", "hybrid"]


def target(path: AnchoredPath, kind: Kind, x0: Tensor, noise: Tensor, anchor: Tensor, t: Time) -> Tensor:
    """What a network of this kind should predict; for "score" it implements :eq:`eq-score-noise`.

    The result is shaped like `x0`, with twice the channels for "hybrid".

    Args:
        path: the path that made x_t.
        kind: what the network predicts.
        x0: (N, ...) clean images in the space of the method.
        noise: the standard normal noise in x_t, shaped like `x0`.
        anchor: broadcastable to `x0`.
        t: times; above 0 for "score".
    """
    _require_kind(path, kind)
    require_fitting(x0, "x0", noise=noise, anchor=anchor)
    if kind == "eps":
        return noise
    if kind == "x0":
        return x0
    if kind == "residual":
        return anchor - x0
    if kind == "hybrid":
        return torch.cat([noise, path.normalized(x0, anchor)], dim=1)
    s = broadcast(path.level(t), x0)
    if kind == "score":
        return -noise / (path.sigma * s)
    return broadcast(path.signal(t), x0) * noise - s * path.normalized(x0, anchor)


def to_x0(path: AnchoredPath, kind: Kind, output: Tensor, x_t: Tensor, anchor: Tensor, t: Time) -> Tensor:
    """Read a prediction as the clean image, shaped like `x_t`. Implements :eq:`eq-parametrizations`.

    For "score" it implements Tweedie's formula, :eq:`eq-tweedie`.

    Args:
        path: the path that made x_t.
        kind: what `output` is.
        output: the prediction, shaped like `x_t`; twice the channels for "hybrid", read with lambda = a_t^2.
        x_t: (N, ...) noisy images.
        anchor: broadcastable to `x_t`.
        t: times; the signal must not have vanished for "eps" and "score".
    """
    _require_kind(path, kind)
    _require_output(kind, output, x_t, anchor)
    if kind == "x0":
        return output
    if kind == "residual":
        return anchor - output
    if kind == "hybrid":
        return hybrid(path, *two_heads(path, output, anchor), x_t, anchor, t)[0]
    a, s, sigma = broadcast(path.signal(t), x_t), broadcast(path.level(t), x_t), path.sigma
    if kind == "eps":
        return anchor + (x_t - anchor - sigma * s * output) / a
    if kind == "score":
        return anchor + (x_t - anchor + (sigma * s) ** 2 * output) / a
    return anchor + (a * (x_t - anchor) - sigma * s * output) / (a**2 + s**2)


def to_noise(path: AnchoredPath, kind: Kind, output: Tensor, x_t: Tensor, anchor: Tensor, t: Time) -> Tensor:
    """Read a prediction as the noise in x_t, shaped like `x_t`; the path's sigma must be positive.

    Args:
        path, kind, output, x_t, anchor: as in `to_x0`.
        t: times; above 0 for "x0" and "residual".
    """
    _require_kind(path, kind)
    _require_output(kind, output, x_t, anchor)
    if path.sigma == 0:
        raise ValueError("a path with sigma = 0 has no noise to predict; read the prediction with to_x0")
    if kind == "eps":
        return output
    if kind == "hybrid":
        return hybrid(path, *two_heads(path, output, anchor), x_t, anchor, t)[1]
    a, s, sigma = broadcast(path.signal(t), x_t), broadcast(path.level(t), x_t), path.sigma
    if kind == "score":
        return -sigma * s * output
    if kind == "v":
        return (s * path.normalized(x_t, anchor) + a * output) / (a**2 + s**2)
    offset = -output if kind == "residual" else output - anchor
    return (x_t - anchor - a * offset) / (sigma * s)


def two_heads(path: AnchoredPath, output: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """The noise and the clean image that a prediction of the kind "hybrid" holds, for `hybrid`."""
    noise, z0 = output.chunk(2, dim=1)
    return noise, anchor + path.sigma * z0


def hybrid(
    path: AnchoredPath,
    noise: Tensor,
    x0: Tensor,
    x_t: Tensor,
    anchor: Tensor,
    t: Time,
    weight: float | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """ECDP's blend of two heads, one that predicts the noise and one that predicts the clean image.

    The blended noise is lambda * (noise head) + (1 - lambda) * (noise that the image head implies), and the blended
    image is made in the same way. With lambda = a_t^2 on a path with a^2 + s^2 = 1 this is v-prediction with v = a_t
    noise - s_t z_0, and it stays finite at both ends of time. Implements :eq:`eq-ecdp-hybrid`. The result is the clean
    image and the noise, shaped like `x_t`.

    Args:
        path: the path that made x_t; its sigma must be positive.
        noise, x0: predictions of the noise and of the clean image in the space of the method, shaped like `x_t`.
        x_t, anchor: as in `to_x0`.
        t: times above 0.
        weight: lambda in [0, 1], a number or a tensor like `t`; a_t^2 if None, as in the released program.

    Raises:
        ValueError: the path has no noise, or the weight has the wrong shape.
    """
    if weight is None:
        weight = path.signal(t).square()
    share = broadcast(weight, x_t) if isinstance(weight, Tensor) else weight
    image = share * to_x0(path, "eps", noise, x_t, anchor, t) + (1 - share) * x0
    blend = share * noise + (1 - share) * to_noise(path, "x0", x0, x_t, anchor, t)
    return image, blend


def blend_weight(path: AnchoredPath, t: Time, ratio: float = 1.0) -> Tensor:
    """The weight of the noise head in `hybrid` that makes the error of the blend least, float64 and shaped like `t`.

    Let the two heads err independently, the image head (in z_0) `ratio` times as much as the noise head. Both give an
    estimate of the noise; that of the image head has its error times a_t / s_t. Weights inverse to the variances give
    lambda = a^2 r^2 / (s^2 + a^2 r^2). For r = 1 this is the a^2 of the released program where a^2 + s^2 = 1.
    Implements :eq:`eq-ecdp-family`.

    Args:
        ratio: r, positive, or a ValueError; towards 0 only the image head counts, towards infinity the noise head.
    """
    require_numbers(ratio=ratio)
    if not 0 < ratio < float("inf"):
        raise ValueError(f"ratio must be a positive number, got {ratio}; use one head alone with weight 0 or 1")
    image = (path.signal(t) * ratio).square()
    return image / (path.level(t).square() + image)


def _require_kind(path: AnchoredPath, kind: str) -> None:
    require_path(path)
    require_choice("kind", kind, Kind)
    if path.sigma == 0 and kind not in ("x0", "residual"):
        raise ValueError(f"a path with sigma = 0 has no noise, so {kind!r} means nothing; predict x0 or residual")


def _require_output(kind: str, output: Tensor, x_t: Tensor, anchor: Tensor) -> None:
    require_fitting(x_t, "x_t", anchor=anchor)
    if kind != "hybrid":
        require_fitting(x_t, "x_t", output=output)
    elif require_floats(output, "output").shape[1] != 2 * x_t.shape[1]:
        raise ValueError(
            f"an output of the kind 'hybrid' has twice the channels of x_t, got {tuple(output.shape)} and "
            f"{tuple(x_t.shape)}"
        )
