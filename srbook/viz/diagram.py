"""A method as boxes and arrows: what is computed once, what at every step, and what in training only."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from srbook.arguments import require_choice, require_instance, require_iterable
from srbook.viz.html import Html, figure, require_alt
from srbook.viz.style import PALETTE, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lane = Literal["once", "step", "training"]
Kind = Literal["data", "math", "trained", "frozen", "loss"]
_Spec = tuple[str, str, str]  # of a box: name, lane, kind; of an arrow: from, to, label

_LANES = {
    "once": ("once per image", "#F4F4F4"),
    "step": ("at every step", "#E3F0F8"),
    "training": ("in training only", "#FBEFDC"),
}
_ROUND, _SQUARE = "round,pad=0,rounding_size=0.08", "square,pad=0"
# Outline and filling say the same as the color does.
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("data", {"boxstyle": _ROUND, "facecolor": "white", "linewidth": 1}),
    "math": ("arithmetic", {"boxstyle": _SQUARE, "facecolor": "white", "linewidth": 1}),
    "trained": ("trained", {"boxstyle": _SQUARE, "facecolor": "#A9D6F0", "linewidth": 2.6}),
    "frozen": ("frozen", {"boxstyle": _SQUARE, "facecolor": "#DDDDDD", "linewidth": 2, "linestyle": (0, (3, 1.5))}),
    "loss": ("loss", {"boxstyle": "sawtooth,pad=0,tooth_size=0.05", "facecolor": "#F7D08A", "linewidth": 1}),
}
_WIDTH, _MARGIN, _GAP, _FONT, _INK = 4.2, 0.42, 0.16, 10.5, PALETTE["black"]  # lengths in inches


@dataclass
class _Box:
    name: str
    kind: str
    row: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    def nearest(self, x: float) -> float:
        """The place on the box's upper and lower side that is closest to x, away from the corners."""
        reach = max(0.0, self.width / 2 - 0.12)
        return min(max(x, self.x - reach), self.x + reach)


def block_diagram(
    title: str, boxes: Sequence[tuple[str, Lane, Kind]], arrows: Sequence[Sequence[str]], *, alt: str
) -> Html:
    """Draw how a method computes, as bands of boxes from top to bottom.

    A box is placed below those of its band that point to it. A new band begins where the lane changes, so "once" may
    stand before and after "step". Within a band, an arrow to a box that is listed earlier is a loop, and is drawn
    around the right side.

    Args:
        title: what the diagram shows.
        boxes: (name, lane, kind) in the order of the computation. The name is the text in the box, with mathematics
            between dollar signs and "\\n" for a new line. The lane is "once" (per image), "step" (at every step), or
            "training" (only). The kind is "data", "math" (arithmetic), "trained" or "frozen" (networks), or "loss".
        arrows: (from, to) or (from, to, label), by the names of the boxes.
        alt: the way of the data in words, as in `figure`.

    Raises:
        ValueError: no boxes, two with one name, an unknown lane, kind, or name, an arrow to its own box, or boxes that
            do not fit beside each other.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    require_instance("title", title, str)
    alt = require_alt(alt)
    boxes, arrows = _checked(boxes, arrows)
    bands = [list(members) for _, members in groupby(boxes, key=lambda box: box[1])]
    place = {name: (number, index) for number, band in enumerate(bands) for index, (name, _, _) in enumerate(band)}
    loops = [
        arrow for arrow in arrows if place[arrow[0]][0] == place[arrow[1]][0] and place[arrow[0]] > place[arrow[1]]
    ]
    plain = [arrow for arrow in arrows if arrow not in loops]
    with matplotlib.style.context(style()):
        fig = Figure(layout="none")  # not pyplot's, which looks for a screen
        ax = fig.add_axes((0, 0, 1, 1))
        rows = _rows(ax, bands, plain, {end for loop in loops for end in loop[:2]})
        placed = {box.name: box for row in rows for box in row}
        heading = textwrap.fill(title, 42)
        ax.text(0.08, -0.08, heading, fontweight="bold", fontsize=12, va="top", color=_INK)
        y = -0.14 - 0.19 * (heading.count("\n") + 1)
        for band in bands:
            y = _draw_band(ax, band[0][1], [rows[n] for n in sorted({placed[name].row for name, _, _ in band})], y)
        taken: list[tuple[int, float]] = []
        for start, end, label in plain:
            _draw_arrow(ax, _route(placed[start], placed[end], rows, taken), label)
        for number, (start, end, label) in enumerate(loops):
            side = _WIDTH - 0.24 + 0.1 * number
            leaves, arrives = ((placed[name].x + placed[name].width / 2, placed[name].y) for name in (start, end))
            _draw_arrow(ax, [leaves, (side, leaves[1]), (side, arrives[1]), arrives], label, part=1, rotation=90)
        for box in placed.values():
            _draw_box(ax, box.x, box.y, box.width, box.height, box.kind)
            ax.text(box.x, box.y, box.name, fontsize=_FONT, ha="center", va="center", color=_INK, zorder=5)
        y = _draw_legend(ax, [kind for kind in _KINDS if any(kind == box.kind for box in placed.values())], y)
        ax.set(xlim=(0, _WIDTH), ylim=(y, 0))
        ax.set_axis_off()
        fig.set_size_inches(_WIDTH, -y)
        return figure(fig, alt=alt)


def _checked(boxes: Any, arrows: Any) -> tuple[list[_Spec], list[_Spec]]:
    require_iterable("boxes", boxes, "(name, lane, kind)")
    require_iterable("arrows", arrows, "(from, to) or (from, to, label)")
    boxes, arrows = [_texts("a box", box, (3,)) for box in boxes], [_texts("an arrow", a, (2, 3)) for a in arrows]
    if not boxes:
        raise ValueError("a diagram needs boxes, got none")
    names = [name for name, _, _ in boxes]
    for name, lane, kind in boxes:
        require_choice(f"the lane of {name!r}", lane, Lane)
        require_choice(f"the kind of {name!r}", kind, Kind)
        if names.count(name) > 1:
            raise ValueError(f"two boxes are named {name!r}; arrows need a name for each")
    for start, end, *_ in arrows:
        for name in (start, end):
            require_choice(f"each end of the arrow {start!r} to {end!r}", name, names)
        if start == end:
            raise ValueError(f"an arrow leads from {start!r} to itself; let it end at another box")
    return boxes, [(start, end, "".join(label)) for start, end, *label in arrows]


def _texts(name: str, value: Any, lengths: tuple[int, ...]) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or len(value) not in lengths or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{name} must be {' or '.join(map(str, lengths))} texts, got {value!r}")
    return tuple(value)


def _rows(ax: "Axes", bands: list[list[_Spec]], arrows: list[_Spec], last: set[str]) -> list[list[_Box]]:
    """All boxes in rows, with their places from left to right; those in `last` stand last in their row."""
    placed: dict[str, _Box] = {}
    rows: list[list[_Box]] = []
    for members in bands:
        depth = _depths([name for name, _, _ in members], arrows)
        band: list[list[_Box]] = [[] for _ in range(max(depth.values()) + 1)]
        for name, _, kind in members:
            text = ax.text(0, 0, name, fontsize=_FONT)
            size = text.get_window_extent()
            text.remove()
            row = depth[name]
            placed[name] = _Box(name, kind, len(rows) + row, size.width / 100 + 0.22, size.height / 100 + 0.16)
            band[row].append(placed[name])
        for row in band:
            row.sort(key=lambda box: box.name in last)
            _spread(row, [[placed[a] for a, b, _ in arrows if b == box.name and a in placed] for box in row])
        rows += band
    return rows


def _depths(names: list[str], arrows: list[_Spec]) -> dict[str, int]:
    """In which row of its band each box stands: below all that point to it, or just above what needs it."""
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = 1 + max((depth[start] for start, end, _ in arrows if end == name and start in depth), default=-1)
    for name in names:
        below = [depth[end] for start, end, _ in arrows if start == name and end in depth]
        if below and not any(end == name and start in depth for start, end, _ in arrows):
            depth[name] = min(below) - 1
    return depth


def _spread(row: list[_Box], sources: list[list[_Box]]) -> None:
    """Place each box below what points to it, or evenly, and then push the boxes apart and into the figure."""
    left, right = _MARGIN - 0.2, _WIDTH - _MARGIN
    if sum(box.width + _GAP for box in row) - _GAP > right - left:
        names = ", ".join(repr(box.name) for box in row)
        raise ValueError(f"{names} do not fit beside each other; break their names into lines or add arrows")
    for number, (box, above) in enumerate(zip(row, sources, strict=True)):
        above = [source for source in above if source.row < box.row]
        even = left + (number + 0.5) * (right - left) / len(row)
        box.x = sum(source.x for source in above) / len(above) if above else even
        least = row[number - 1].x + row[number - 1].width / 2 + _GAP if number else left
        box.x = max(box.x, least + box.width / 2)
    for number, box in reversed(list(enumerate(row))):
        most = row[number + 1].x - row[number + 1].width / 2 - _GAP if number + 1 < len(row) else right
        box.x = min(box.x, most - box.width / 2)


def _route(start: _Box, end: _Box, rows: list[list[_Box]], taken: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """A line from box to box that passes all rows between them in one column, off the boxes and lines already there."""
    down = 1 if end.row > start.row else -1
    between = range(start.row + down, end.row, down)

    def cost(x: float) -> tuple[int, int, float]:
        hit = sum(abs(x - box.x) < box.width / 2 + 0.07 for row in between for box in rows[row])
        shared = sum(row in between and abs(x - other) < 0.09 for row, other in taken)
        return hit, shared, abs(x - start.nearest(x)) + abs(x - end.nearest(x))

    points = []
    if between:
        straight = [box.nearest(x) for box in (start, end) for x in (0, box.x, _WIDTH)]
        x = min([*straight, *(0.05 * step for step in range(2, round(20 * _WIDTH) - 1))], key=cost)
        taken += [(row, x) for row in between]
        for side, row in ((down, between[0]), (-down, between[-1])):
            points.append((x, rows[row][0].y + side * max(box.height for box in rows[row]) / 2))
        leaves, arrives = start.nearest(x), end.nearest(x)
    else:
        arrives = end.nearest(start.nearest(end.x))
        leaves = start.nearest(arrives)
    half = down / 2
    return [(leaves, start.y - half * start.height), *points, (arrives, end.y + half * end.height)]


def _draw_band(ax: "Axes", lane: str, rows: list[list[_Box]], top: float) -> float:
    """Draw the ground of a band from `top` down, and give its boxes their heights; where the band ends."""
    y = top - 0.3
    for row in rows:
        height = max(box.height for box in row)
        for box in row:
            box.y = y - height / 2
        y -= height + 0.28
    y += 0.12
    text, shade = _LANES[lane]
    ax.axhspan(y, top, facecolor=shade, edgecolor="white", linewidth=3, zorder=0)
    ground = {"facecolor": shade, "edgecolor": "none", "pad": 1}
    ax.text(0.08, top - 0.06, text, fontsize=_FONT - 1, style="italic", va="top", color=_INK, bbox=ground, zorder=3)
    return y


def _draw_arrow(ax: "Axes", points: list[tuple[float, float]], label: str, part: int = -2, rotation: float = 0) -> None:
    """A line with its label on one of its parts, the last one or that which begins at point `part`."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    look = {"arrowstyle": "-|>", "mutation_scale": 11, "color": _INK, "linewidth": 1.3}
    ax.add_patch(FancyArrowPatch(path=Path(points), zorder=2, **look))
    if label:
        (x, y), (to_x, to_y) = points[part], points[part + 1]
        words = {"fontsize": _FONT - 1.5, "ha": "center", "va": "center", "color": _INK, "rotation": rotation}
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
        ax.text((x + to_x) / 2, (y + to_y) / 2, label, bbox=ground, zorder=3, **words)


def _draw_box(ax: "Axes", x: float, y: float, width: float, height: float, kind: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    look = {"edgecolor": _INK, "zorder": 4, **_KINDS[kind][1]}
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, **look))


def _draw_legend(ax: "Axes", kinds: list[str], y: float) -> float:
    for number, kind in enumerate(kinds):
        column = number % 3
        if column == 0:
            y -= 0.26
        _draw_box(ax, 0.3 + 1.35 * column, y, 0.34, 0.16, kind)
        ax.text(0.56 + 1.35 * column, y, _KINDS[kind][0], fontsize=_FONT - 1, va="center", color=_INK)
    return y - 0.16
