"""HTML that carries its own images, styles, and alternative text."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from srbook.arguments import require_integer, require_iterable
from srbook.images import require_images, round_to_8bit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels of the bitmap per pixel of the page, so that figures stay sharp on dense screens.
DENSITY = 2

# Class `dark-light` keeps the book's theme from dimming images in its dark mode: pixels are the subject here.
IMAGE_CLASS = "dark-light"

_STYLE = (
    "<style>.srb-figure{margin:1em 0;max-width:100%}"
    ".srb-figure img{max-width:100%;height:auto;border-radius:4px;display:block;margin:0;padding:0}"
    ".srb-figure .srb-pixels{image-rendering:pixelated}"
    ".srb-figure figcaption{margin-top:.4em;font-size:.9em;text-align:left}</style>"
)


@dataclass(frozen=True, repr=False)
class Html:
    """A piece of a page, which Jupyter and the book show: its whole markup, and `alt` for readers who cannot see it."""

    html: str
    alt: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"[figure: {self.alt}]"


def figure(fig: "Figure", *, alt: str, caption: str | None = None) -> Html:
    """A matplotlib figure with alternative text. Every figure of the book goes through here.

    The figure is drawn at its own size, on white, whatever matplotlib's `savefig` settings are, and closed, so that it
    is not shown a second time.

    Args:
        fig: a finished matplotlib figure; anything else is a TypeError.
        alt: what is seen and what it means, in a sentence or two; empty, it is a ValueError.
        caption: visible text below the figure.
    """
    alt = require_alt(alt)
    width, uri = figure_uri(fig, "png")
    image = image_tag(uri, alt, width)
    return Html(wrap(image + caption_tag(caption)), alt)


def figure_uri(fig: "Figure", image_format: str) -> tuple[int, str]:
    """Draw and close a matplotlib figure: its width on the page in pixels, and its bitmap as a data address."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    if not isinstance(fig, Figure):
        raise TypeError(f"expected a matplotlib Figure, got {type(fig).__name__}; pass `ax.figure` for an Axes")
    # On a canvas of our own: `savefig` obeys a reader's settings, and only the canvas knows how it rounds sizes.
    canvas = FigureCanvasAgg(fig)
    fig.set_dpi(100 * DENSITY)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    plt.close(fig)
    page = Image.new("RGBA", drawn.size, "white")
    page.alpha_composite(drawn)
    return round(page.width / DENSITY), data_uri(np.asarray(page.convert("RGB")), image_format)


def to_pixels(image: Tensor, name: str = "image") -> np.ndarray:
    """An image (3, H, W) or (1, 3, H, W) in [0, 1] as (H, W, 3) bytes; others are a TypeError or ValueError."""
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image[None]
    image = require_images(image, name)
    if len(image) != 1:
        raise ValueError(f"{name} must hold one image, got a batch of {len(image)}; index it first")
    levels = round_to_8bit(image[0].detach().float().cpu()) * 255
    return np.ascontiguousarray(levels.round().byte().permute(1, 2, 0).numpy())


def data_uri(pixels: np.ndarray, image_format: str) -> str:
    """(H, W, 3) bytes as a `data:` address; both formats ("png", "webp") keep every pixel exactly."""
    from PIL import Image

    options = {"png": {"optimize": True}, "webp": {"lossless": True, "method": 4}}[image_format]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format=image_format, **options)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def require_alt(alt: str) -> str:
    """Return `alt` without surrounding space; a ValueError if it is not a string, or is empty."""
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt={alt!r}: say what the figure shows, for readers who cannot see it")
    return alt.strip()


def require_texts(name: str, texts: Sequence[str], count: int) -> list[str]:
    """Return `texts` as a list if they are `count` strings; otherwise raise a ValueError or TypeError."""
    require_iterable(name, texts, "texts")
    texts = list(texts)
    if len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be {count} texts, one for each image, got {texts!r}")
    return texts


def require_zoom(zoom: int) -> int:
    """Return `zoom` if it is a positive integer; otherwise raise a ValueError."""
    require_integer("zoom", zoom, 1)
    return zoom


def image_tag(uri: str, alt: str, width: int, *, classes: str = "", hidden: bool = False) -> str:
    """An `img` element `width` pixels wide, that shrinks with the page.

    Class `srb-pixels` enlarges without smoothing.
    """
    names = f"{IMAGE_CLASS} {classes}".strip()
    ending = " hidden" if hidden else ""
    return f'<img class="{names}" src="{uri}" alt="{escape(alt)}" width="{width}"{ending}>'


def caption_tag(caption: str | None) -> str:
    """The visible text below a figure; nothing for None."""
    if not isinstance(caption, str | None):
        raise TypeError(f"caption must be a text, got {caption!r}")
    return "" if caption is None else f"<figcaption>{escape(caption)}</figcaption>"


def wrap(body: str, attributes: str = "", css: str = "") -> str:
    """A `figure` element with its styles. Blank lines would end a raw HTML block, so there are none."""
    style = _STYLE + (f"<style>{css}</style>" if css else "")
    return f'{style}<figure class="srb-figure"{attributes}>{body}</figure>'
