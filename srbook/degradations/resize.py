"""MATLAB's bicubic `imresize` on tensors: the degradation that defines the standard test sets.

Resizing is linear and separable: one sparse matrix per axis. The matrices are built in float64, cached, and cut into
blocks of rows, since neighboring outputs read only a short run of inputs.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from srbook.arguments import require_integer, require_numbers
from srbook.images import require_floats, require_planes, require_unit_range, round_to_8bit

_OTHER_FACTORS = "for other factors use imresize"
ROWS_PER_BLOCK = 32  # few enough that a block reads little, many enough that the matrix product is efficient


def cubic_kernel(x: Tensor, a: float = -0.5) -> Tensor:
    """The cubic convolution kernel of Keys (1981), zero outside (-2, 2).

    Implements :eq:`eq-cubic`.

    Args:
        x: offsets from the kernel's center, in samples; any shape.
        a: slope at |x| = 1. Keys and MATLAB use -0.5 (third-order accurate); OpenCV and plain PyTorch use -0.75.
    """
    require_numbers(a=a)
    if not math.isfinite(a):
        raise ValueError(f"a must be finite, got {a}; the usual value is -0.5")
    x = require_floats(x, "x").abs()
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))


def resize_weights(in_length: int, out_length: int, scale: float, antialias: bool = True) -> Tensor:
    """The matrix (out_length, in_length) that resizes one axis: output = weights @ input. Each row sums to one.

    Output sample i sits at input coordinate (i + 1/2) / scale - 1/2. When `antialias` and scale < 1, the kernel is
    stretched by 1 / scale so that it also removes the frequencies too high for the smaller grid. Beyond its ends the
    input is continued by reflection that repeats the edge sample. Implements :eq:`eq-resize`. The matrix is float64 and
    mostly zeros; `scale` is output samples per input sample. Arguments that are not positive are a ValueError.
    """
    require_integer("in_length", in_length, 1)
    require_integer("out_length", out_length, 1)
    _require_positive(scale)
    index, weight = _taps(in_length, out_length, scale, antialias)
    return torch.zeros(out_length, in_length, dtype=torch.float64).scatter_add_(1, index, weight)


def imresize(
    image: Tensor, scale: float | None = None, size: tuple[int, int] | None = None, antialias: bool = True
) -> Tensor:
    """Resize as MATLAB's `imresize(..., 'bicubic')` does (Keys 1981, a = -0.5). Differentiable, on any device.

    Both axes apply the matrix of :eq:`eq-resize`. Values are neither clipped nor rounded: cubic interpolation
    overshoots at edges. The result keeps the input's type; float16 and bfloat16 are computed in float32, also under
    autocast. On a GPU the products follow `torch.set_float32_matmul_precision`, whose default is full precision.

    Args:
        image: (..., H, W), floating point, any range.
        scale: magnification of both axes; the output has ceil(scale * H) x ceil(scale * W) samples, as in MATLAB.
        size: (height, width) of the output instead of `scale`; each axis then has its own scale.
        antialias: stretch the kernel when shrinking, as MATLAB does by default.

    Raises:
        TypeError: `image` is not a floating point tensor.
        ValueError: not exactly one of `scale` and `size`, one that is not positive, or an image without pixels.
    """
    require_planes(image, "image")
    height, width = _plan(image.shape[-2], image.shape[-1], scale, size)

    dtype = image.dtype if image.dtype == torch.float64 else torch.float32
    columns = _blocks(image.shape[-1], *width, antialias, dtype, image.device)
    rows = _blocks(image.shape[-2], *height, antialias, dtype, image.device)
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 products would be off by a level in 256
        x = image.to(dtype).contiguous()
        # The axis that shrinks most goes first, so that the other has less to do.
        if width[1] <= height[1]:
            x = _resize_rows(_resize_columns(x, columns), rows)
        else:
            x = _resize_columns(_resize_rows(x, rows), columns)
        return x.to(image.dtype)


def bicubic_downsample(hr: Tensor, scale: int) -> Tensor:
    """The standard degradation: shrink by an integer with MATLAB's bicubic, then round to the levels k/255.

    Implements :eq:`eq-degradation`. Test sets store the low-resolution image as 8-bit files, so scores without the
    rounding do not compare. `hr` is (..., H, W) in [0, 1]; values outside and sides that are not divisible by `scale`
    are a ValueError, see `crop_to_multiple`.
    """
    return round_to_8bit(shrink(hr, scale))


def shrink(hr: Tensor, scale: int) -> Tensor:
    """`bicubic_downsample` before it rounds: values overshoot [0, 1] at edges. Raises the same."""
    require_unit_range(require_planes(hr, "hr"), "hr")
    require_integer("scale", scale, 1, remedy=_OTHER_FACTORS)
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(
            f"height and width must be divisible by scale {scale}, got {height} x {width}; "
            f"crop first: srbook.images.crop_to_multiple(hr, {scale})"
        )
    return imresize(hr, size=(height // scale, width // scale))


def bicubic_upsample(lr: Tensor, scale: int) -> Tensor:
    """Enlarge by an integer `scale` of at least 1 with MATLAB's bicubic: (..., H, W) to (..., scale * H, scale * W).

    Values overshoot [0, 1] at edges; callers clamp them.
    """
    require_integer("scale", scale, 1, remedy=_OTHER_FACTORS)
    return imresize(lr, scale=scale)


class _Block(NamedTuple):
    """Some rows of a resize matrix: outputs = weights @ inputs[start:stop]."""

    start: int
    stop: int
    weights: Tensor


def _plan(
    height: int, width: int, scale: float | None, size: tuple[int, int] | None
) -> tuple[tuple[int, float], tuple[int, float]]:
    """(output length, scale) of the two axes."""
    if (scale is None) == (size is None):
        raise ValueError(f"give exactly one of scale and size, got scale={scale!r} and size={size!r}")
    if size is not None:
        if not isinstance(size, tuple | list | torch.Size) or len(size) != 2:
            raise ValueError(f"size must be (height, width), two positive integers, got {size!r}")
        for name, side in zip(("height", "width"), size, strict=True):
            require_integer(f"the {name} in size", side, 1)
        return (size[0], size[0] / height), (size[1], size[1] / width)
    _require_positive(scale)
    return (math.ceil(scale * height), float(scale)), (math.ceil(scale * width), float(scale))


def _require_positive(scale: float) -> None:
    require_numbers(scale=scale)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, got {scale!r}")


def _taps(in_length: int, out_length: int, scale: float, antialias: bool) -> tuple[Tensor, Tensor]:
    """Which inputs each output reads, and with what weight: two (out_length, taps) tensors."""
    stretch = max(1.0, 1 / scale) if antialias else 1.0
    position = (torch.arange(out_length, dtype=torch.float64, device="cpu") + 0.5) / scale - 0.5
    first = torch.floor(position - 2 * stretch)
    index = first[:, None] + torch.arange(math.ceil(4 * stretch) + 2, dtype=torch.float64, device="cpu")
    weight = cubic_kernel((position[:, None] - index) / stretch)
    weight = weight / weight.sum(dim=1, keepdim=True)
    index = index.long() % (2 * in_length)  # the reflected signal repeats after twice its length
    return torch.minimum(index, 2 * in_length - 1 - index), weight


@lru_cache(maxsize=256)
def _blocks(
    in_length: int, out_length: int, scale: float, antialias: bool, dtype: torch.dtype, device: torch.device
) -> tuple[_Block, ...]:
    with torch.inference_mode(False), torch.no_grad():  # the cache outlives the caller's mode
        index, weight = _taps(in_length, out_length, scale, antialias)
        blocks = []
        for index_block, weight_block in zip(index.split(ROWS_PER_BLOCK), weight.split(ROWS_PER_BLOCK), strict=True):
            used = index_block[weight_block != 0]
            start, stop = int(used.min()), int(used.max()) + 1
            dense = torch.zeros(len(index_block), stop - start, dtype=torch.float64, device="cpu")
            dense.scatter_add_(1, (index_block - start).clamp(0, stop - start - 1), weight_block)
            blocks.append(_Block(start, stop, dense.to(device, dtype)))
        return tuple(blocks)


def _resize_rows(x: Tensor, blocks: tuple[_Block, ...]) -> Tensor:
    return torch.cat([block.weights @ x[..., block.start : block.stop, :] for block in blocks], dim=-2)


def _resize_columns(x: Tensor, blocks: tuple[_Block, ...]) -> Tensor:
    return torch.cat([x[..., block.start : block.stop] @ block.weights.T for block in blocks], dim=-1)
