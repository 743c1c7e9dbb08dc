"""One look for every figure: color-blind safe, and readable when a figure shrinks to 360 px."""

from typing import Any

#: Okabe and Ito's palette (2008), darkest contrast first; distinguishable with any common color vision.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "black": "#222222",
}


def style() -> list[str | dict[str, Any]]:
    """The settings of the book for `matplotlib.style`: its defaults, whatever a reader has set, and then ours."""
    from matplotlib import cycler

    ink, grid = "#222222", "#D9D9D9"
    ours = {
        "figure.figsize": (5.2, 3.3),
        "figure.dpi": 100,
        "figure.facecolor": "white",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.08,
        "figure.constrained_layout.w_pad": 0.08,
        "font.size": 12,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 12,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=list(PALETTE.values())),
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "lines.linewidth": 2.0,
        "lines.markersize": 6,
        "legend.frameon": False,
        "legend.fontsize": 11,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "xtick.color": ink,
        "ytick.color": ink,
        "image.interpolation": "nearest",
        "image.cmap": "cividis",
    }
    return ["default", ours]


def use_style() -> None:
    """Make the book's style the default of this session: call it once, at the top of a notebook.

    It replaces all settings of your own, so that figures are the same on every machine.
    """
    import matplotlib.style

    matplotlib.style.use(style())
