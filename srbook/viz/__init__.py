"""Figures of the book: one style, alternative text everywhere, and interaction that also works without a kernel.

Everything here returns an object that Jupyter and the book show as HTML. With `SRBOOK_STATIC=1` (set by the book's
build) interactive figures are drawn ahead of time.
"""

from srbook.progress import is_static
from srbook.viz.compare import compare
from srbook.viz.diagram import block_diagram
from srbook.viz.explore import explore
from srbook.viz.html import Html, figure
from srbook.viz.images import show_images
from srbook.viz.style import PALETTE, use_style
from srbook.viz.training import live_loss_curve, loss_curve

__all__ = [
    "PALETTE",
    "Html",
    "block_diagram",
    "compare",
    "explore",
    "figure",
    "is_static",
    "live_loss_curve",
    "loss_curve",
    "show_images",
    "use_style",
]
