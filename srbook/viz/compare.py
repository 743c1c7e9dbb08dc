"""Two images under one slider."""

from html import escape

from torch import Tensor

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
from srbook.viz.images import enlarge, integer_factor

# The native range input lies over the images, invisible: mouse, touch, and keyboard work as everywhere.
_CSS = (
    ".srb-compare{position:relative;width:fit-content;max-width:100%;--at:50%;line-height:0}"
    ".srb-compare .srb-before{position:absolute;inset:0;width:100%;height:100%;"
    "clip-path:inset(0 calc(100% - var(--at)) 0 0)}"
    ".srb-compare input{position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;"
    "cursor:ew-resize;touch-action:pan-y}"
    ".srb-handle{position:absolute;top:0;bottom:0;left:var(--at);width:3px;margin-left:-1.5px;"
    "background:#fff;box-shadow:0 0 0 1px #222;pointer-events:none}"
    ".srb-handle::after{content:'';position:absolute;top:50%;left:50%;width:22px;height:22px;"
    "margin:-11px 0 0 -11px;border-radius:50%;background:#fff;box-shadow:0 0 0 2px #222}"
    ".srb-compare input:focus-visible+.srb-handle::after{box-shadow:0 0 0 2px #222,0 0 0 6px #E69F00}"
    ".srb-sides{display:flex;justify-content:space-between;gap:1em;font-size:.85em;line-height:1.3;"
    "margin-bottom:.25em}"
)

_MOVE = "this.parentElement.style.setProperty('--at',this.value+'%')"


def compare(
    before: Tensor,
    after: Tensor,
    *,
    labels: tuple[str, str],
    alt: str,
    zoom: int = 1,
    caption: str | None = None,
) -> Html:
    """A before/after slider: drag it, or use the arrow keys. It needs no kernel.

    Args:
        before: left image, (3, H, W) or (1, 3, H, W) in [0, 1].
        after: right image, of the same size; either may also be smaller by an integer factor.
        labels: what stands left and right.
        alt: what differs between the two.
        zoom: page pixels per pixel of the larger image.
        caption: visible text below.

    Raises:
        ValueError: the sizes do not fit, `zoom` is not a positive integer, or `alt` is empty.
    """
    alt, zoom, labels = require_alt(alt), require_zoom(zoom), require_texts("labels", labels, 2)
    left, right = to_pixels(before, "before"), to_pixels(after, "after")
    grow_left, grow_right = integer_factor(left, right), integer_factor(right, left)
    if grow_left is None and grow_right is None:
        raise ValueError(
            f"before is {left.shape[:2]} and after is {right.shape[:2]}: they must have the same size, "
            "or one must be an integer factor larger"
        )
    left, right = enlarge(left, grow_left or 1), enlarge(right, grow_right or 1)
    width = right.shape[1] * zoom
    exact = "srb-pixels" if zoom > 1 else ""
    first, second = (escape(label) for label in labels)
    under = image_tag(data_uri(right, "png"), f"{labels[1]}: {alt}", width, classes=exact)
    over = image_tag(data_uri(left, "png"), labels[0], width, classes=f"srb-before {exact}")
    body = (
        f'<div class="srb-sides" style="max-width:{width}px">'
        f"<span>◀ {first}</span><span>{second} ▶</span></div>"
        f'<div class="srb-compare">{under}{over}'
        '<input type="range" min="0" max="100" value="50" step="1" autocomplete="off" '
        f'aria-label="Percent of the width that shows {first}; the rest shows {second}" oninput="{_MOVE}">'
        f'<div class="srb-handle"></div></div>{caption_tag(caption)}'
    )
    return Html(wrap(body, css=_CSS), alt)
