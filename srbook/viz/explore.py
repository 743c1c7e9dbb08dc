"""An interactive figure that is a widget in Jupyter and a frame slider in the book."""

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import product
from typing import TYPE_CHECKING, Any

from torch import Tensor

from srbook.arguments import require_function, require_instance, require_iterable
from srbook.progress import is_static
from srbook.viz.html import (
    Html,
    caption_tag,
    data_uri,
    figure_uri,
    image_tag,
    require_alt,
    require_zoom,
    to_pixels,
    wrap,
)
from srbook.viz.style import style

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

Draw = Callable[..., "Figure | Tensor"]

MAX_FRAMES = 64
MAX_BYTES = 6_000_000

_CSS = (
    ".srb-explore img[hidden]{display:none!important}"
    ".srb-explore label{display:flex;flex-wrap:wrap;align-items:center;gap:.2em .8em;margin:.4em 0 0;"
    "font-size:.95em;max-width:36em}"
    ".srb-explore input{flex:1 1 9em;min-width:6em;accent-color:#0072B2}"
    ".srb-explore output{flex:0 0 4.5em;font-variant-numeric:tabular-nums}"
)

# Frames are in row-major order of the axes. No ids and no script element, so any number fit on a page.
_MOVE = (
    "let i=0;for(const s of this.querySelectorAll('input')){i=i*(+s.max+1)+ +s.value;"
    "const t=JSON.parse(s.dataset.values)[s.value];s.nextElementSibling.value=t;"
    "s.setAttribute('aria-valuetext',t)}"
    "this.querySelectorAll('img').forEach((f,k)=>{f.hidden=k!==i})"
)


def explore(
    draw: Draw,
    axes: Mapping[str, Sequence[Any]],
    *,
    alt: str,
    labels: Mapping[str, str] | None = None,
    zoom: int = 1,
    caption: str | None = None,
) -> "Html | VBox":
    """A figure with one slider per axis: HTML in static mode, otherwise a widget.

    In a live notebook `draw` runs when a slider moves. With `SRBOOK_STATIC=1` every combination is drawn ahead (at most
    64 frames and 6 MB), and the sliders choose among the frames.

    Args:
        draw: called with one value per axis by name; returns a matplotlib figure, or an image (3, H, W) or (1, 3, H, W)
            in [0, 1]. Keep the size the same for all values.
        axes: values of each slider, in order. The first of each is shown first.
        alt: what a frame shows; may use the values, as in "The patch at noise level {sigma:.2f}".
        labels: visible name of a slider, where it is not the axis's own name.
        zoom: page pixels per image pixel, for images.
        caption: visible text below.

    Raises:
        TypeError: `draw` returns something else.
        ValueError: no axis or an empty one, a label for an unknown axis, `alt` empty or using an unknown axis, too many
            frames, or too many bytes.
        ModuleNotFoundError: a live notebook without ipywidgets.
    """
    require_function("draw", draw)
    require_instance("axes", axes, Mapping)
    require_instance("labels", labels or {}, Mapping)
    for axis, values in axes.items():
        require_iterable(f"the axis {axis!r}", values, "values")
    if not axes or not all(len(values) for values in axes.values()):
        raise ValueError(f"axes={dict(axes)!r}: give at least one axis, and at least one value for each")
    unknown = set(labels or {}) - set(axes)
    if unknown:
        raise ValueError(f"labels for unknown axes {sorted(unknown)}; the axes are {list(axes)}")
    require_zoom(zoom)
    names = {axis: (labels or {}).get(axis, axis) for axis in axes}
    choices = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    alts = [_fill(require_alt(alt), choice) for choice in choices]
    if not is_static():
        return _widget(draw, axes, names, alt.strip(), zoom, caption)
    if len(choices) > MAX_FRAMES:
        shape = " x ".join(str(len(values)) for values in axes.values())
        raise ValueError(f"{shape} = {len(choices)} frames; a page holds at most {MAX_FRAMES}: use fewer values")
    frames = []
    for index, (choice, text) in enumerate(zip(choices, alts, strict=True)):
        frames.append(_frame(draw, choice, text, zoom, hidden=index > 0))
        size = sum(map(len, frames))
        if size > MAX_BYTES:
            raise ValueError(
                f"the first {index + 1} of {len(choices)} frames already take {size / 1e6:.1f} MB; a figure may "
                f"take {MAX_BYTES / 1e6:.0f} MB: use fewer values, smaller images, or a smaller figure"
            )
    sliders = "".join(_slider(names[axis], values) for axis, values in axes.items())
    notice = "<noscript><p>The sliders need JavaScript; this is the first frame.</p></noscript>"
    body = f'<div class="srb-explore" oninput="{escape(_MOVE)}">{"".join(frames)}{sliders}{notice}</div>'
    return Html(wrap(body + caption_tag(caption), css=_CSS), alts[0])


def _fill(alt: str, values: Mapping[str, Any]) -> str:
    try:
        return alt.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"alt={alt!r} cannot be filled in ({error}): in braces goes one of {list(values)}; double other braces"
        ) from None


def _frame(draw: Draw, values: Mapping[str, Any], alt: str, zoom: int, *, hidden: bool) -> str:
    import matplotlib.style

    with matplotlib.style.context(style()):
        drawn = draw(**values)
        if not isinstance(drawn, Tensor):
            width, uri = figure_uri(drawn, "webp")
            return image_tag(uri, alt, width, hidden=hidden)
    pixels = to_pixels(drawn, "the image that draw returned")
    exact = "srb-pixels" if zoom > 1 else ""
    return image_tag(data_uri(pixels, "webp"), alt, pixels.shape[1] * zoom, classes=exact, hidden=hidden)


def _slider(label: str, values: Sequence[Any]) -> str:
    texts = [_text(value) for value in values]
    return (
        f'<label><span>{escape(label)}</span><input type="range" min="0" max="{len(texts) - 1}" step="1" value="0" '
        f'autocomplete="off" aria-label="{escape(label)}" aria-valuetext="{escape(texts[0])}" '
        f'data-values="{escape(json.dumps(texts))}">'
        f'<output aria-live="polite">{escape(texts[0])}</output></label>'
    )


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _widget(
    draw: Draw,
    axes: Mapping[str, Sequence[Any]],
    names: Mapping[str, str],
    alt: str,
    zoom: int,
    caption: str | None,
) -> "VBox":
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'interactive figures need ipywidgets: pip install "srbook[study]", or set SRBOOK_STATIC=1'
        ) from error

    sliders = {
        axis: ipywidgets.SelectionSlider(
            options=[(_text(value), value) for value in values],
            description=names[axis],
            continuous_update=False,  # one drawing per stop, however slow drawing is
            style={"description_width": "initial"},
        )
        for axis, values in axes.items()
    }
    picture = ipywidgets.HTML()

    def redraw(_change: Any = None) -> None:
        values = {axis: slider.value for axis, slider in sliders.items()}
        frame = _frame(draw, values, _fill(alt, values), zoom, hidden=False)
        picture.value = wrap(f'<div class="srb-explore">{frame}</div>{caption_tag(caption)}', css=_CSS)

    for slider in sliders.values():
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([picture, *sliders.values()])
