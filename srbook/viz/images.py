"""Images side by side, pixel for pixel."""

from collections.abc import Sequence
from html import escape
from numbers import Integral

import numpy as np
from torch import Tensor

from srbook.arguments import require_integer, require_iterable
from srbook.viz.html import (
    Html,
    caption_tag,
    data_uri,
    image_tag,
    require_alt,
    require_texts,
    require_zoom,
    to_pixels,
    wrap,
)
from srbook.viz.style import PALETTE

_CSS = (
    ".srb-grid{display:grid;gap:.7em;align-items:start}"
    ".srb-grid>div{min-width:0}"
    ".srb-grid span{display:block;font-size:.85em;line-height:1.3;margin-bottom:.25em}"
)

Crop = tuple[int, int, int, int]


def show_images(
    images: Sequence[Tensor],
    *,
    titles: Sequence[str],
    alt: str,
    crop: Crop | None = None,
    zoom: int = 1,
    columns: int | None = None,
    caption: str | None = None,
) -> Html:
    """Images in a grid with a title each, enlarged by an integer factor without smoothing.

    An image that is smaller than the largest by an integer factor (a low-resolution input beside its results)
    is enlarged to the same size by repeating pixels; others keep their size.

    Args:
        images: each (3, H, W) or (1, 3, H, W), float in [0, 1].
        titles: one per image.
        alt: what the comparison shows and what it means.
        crop: (top, left, height, width) in pixels of the largest image. All images show this part only, and the
            whole of the last image (by custom the truth) goes first with the part framed.
        zoom: page pixels per image pixel.
        columns: images in a row, at any width of the page, for small ones; None chooses by their size.
        caption: visible text below.

    Raises:
        ValueError: nothing to show, titles do not match, the crop leaves the image, sizes do not fit a common
            crop, `zoom` is not a positive integer, or `alt` is empty.
    """
    alt, zoom = require_alt(alt), require_zoom(zoom)
    require_iterable("images", images, "images")
    images = list(images)
    if not images:
        raise ValueError("need images and one title for each, got none")
    titles = require_texts("titles", titles, len(images))
    if columns is not None:
        require_integer("columns", columns, 1)
    arrays = _same_size([to_pixels(image, title) for image, title in zip(images, titles, strict=True)])
    cells = []
    if crop is not None:
        top, left, height, width = _require_crop(crop, arrays, titles)
        # The overview shows where, the crops show what: it may be scaled down.
        overview = _outlined(arrays[-1], crop)
        cells.append(_cell(overview, "the part shown", min(overview.shape[1], width * zoom), exact=False))
        arrays = [array[top : top + height, left : left + width] for array in arrays]
    for array, title in zip(arrays, titles, strict=True):
        cells.append(_cell(array, title, array.shape[1] * zoom, exact=zoom > 1))
    body = f"{_grid(cells, max(array.shape[1] for array in arrays) * zoom, columns)}{caption_tag(caption)}"
    return Html(wrap(body, f' role="group" aria-label="{escape(alt)}"', _CSS), alt)


def _grid(cells: list[str], width: int, columns: int | None) -> str:
    if columns is not None:
        tracks = f"grid-template-columns:repeat({columns},minmax(0,1fr));max-width:{columns * (width + 12)}px"
        return f'<div class="srb-grid" style="{tracks}">{"".join(cells)}</div>'
    # At most three columns (two for four cells) on a wide page, two on a phone; never wider than the images.
    columns = 2 if len(cells) in (2, 4) else min(3, len(cells))
    least = f"min({width}px,max(130px,{100 // columns - 4}%))"
    tracks = f"grid-template-columns:repeat(auto-fit,minmax({least},1fr));max-width:{columns * (width + 12)}px"
    return f'<div class="srb-grid" style="{tracks}">{"".join(cells)}</div>'


def enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel `factor` times along both axes of (H, W, 3) bytes."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def integer_factor(small: np.ndarray, large: np.ndarray) -> int | None:
    """How many times `small` fits into `large` along both axes, if that is one integer."""
    (h, w), (height, width) = small.shape[:2], large.shape[:2]
    return height // h if height % h == 0 and width % w == 0 and height // h == width // w else None


def _same_size(arrays: list[np.ndarray]) -> list[np.ndarray]:
    largest = max(arrays, key=lambda array: array.size)
    return [enlarge(array, integer_factor(array, largest) or 1) for array in arrays]


def _require_crop(crop: Crop, arrays: list[np.ndarray], titles: Sequence[str]) -> Crop:
    for array, title in zip(arrays, titles, strict=True):
        if array.shape != arrays[-1].shape:
            raise ValueError(
                f"one crop needs images of one size (or smaller by an integer factor): {title!r} is "
                f"{array.shape[:2]}, {titles[-1]!r} is {arrays[-1].shape[:2]}"
            )
    if not isinstance(crop, tuple | list) or len(crop) != 4 or not all(isinstance(each, Integral) for each in crop):
        raise ValueError(f"crop must be four integers (top, left, height, width), got {crop!r}")
    top, left, height, width = crop
    full = arrays[-1].shape
    if min(top, left) < 0 or min(height, width) < 1 or top + height > full[0] or left + width > full[1]:
        raise ValueError(f"crop (top, left, height, width) = {crop} leaves the image of size {full[:2]}")
    return crop


def _outlined(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    top, left, height, width = crop
    line = max(2, max(pixels.shape) // 100)
    color = np.array([int(PALETTE["orange"][i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    outer = np.zeros(pixels.shape[:2], bool)
    outer[max(0, top - line) : top + height + line, max(0, left - line) : left + width + line] = True
    outer[top : top + height, left : left + width] = False
    return np.where(outer[..., None], color, pixels)


def _cell(pixels: np.ndarray, title: str, width: int, *, exact: bool) -> str:
    tag = image_tag(data_uri(pixels, "png"), title, width, classes="srb-pixels" if exact else "")
    return f"<div><span>{escape(title)}</span>{tag}</div>"
