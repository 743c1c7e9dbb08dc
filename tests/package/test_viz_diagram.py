"""Block diagrams: every box and arrow is there, apart from the others, and malformed ones are refused."""

from itertools import pairwise

import matplotlib
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.transforms import Bbox

matplotlib.use("agg")

from srbook import viz
from srbook.viz import diagram

START = r"start $y^{\uparrow} + \kappa\sqrt{\eta_T}\;\varepsilon$"
BACK = "step back to $x_{t-1}$"
RESSHIFT = [
    ("small image $y$", "once", "data"),
    ("bicubic", "once", "math"),
    ("encoder", "once", "frozen"),
    (r"noise $\varepsilon$", "once", "data"),
    (START, "once", "math"),
    ("$x_t$", "step", "data"),
    ("network", "step", "trained"),
    (r"$\hat x_0$", "step", "data"),
    (BACK, "step", "math"),
    ("decoder", "once", "frozen"),
    ("large image", "once", "data"),
    ("photograph", "training", "data"),
    ("encoder again", "training", "frozen"),
    ("squared\nerror", "training", "loss"),
    ("LPIPS", "training", "loss"),
    ("jump to $x_t$", "training", "math"),
]
ARROWS = [
    ("small image $y$", "bicubic"),
    ("bicubic", "encoder"),
    ("encoder", START),
    (r"noise $\varepsilon$", START),
    (START, "$x_t$", "$t = T$"),
    ("small image $y$", "network"),
    ("$x_t$", "network"),
    ("network", r"$\hat x_0$"),
    (r"$\hat x_0$", BACK),
    ("$x_t$", BACK),
    (BACK, "$x_t$", "next $t$"),
    (r"$\hat x_0$", "decoder", "in the end"),
    ("decoder", "large image"),
    ("photograph", "encoder again"),
    ("encoder again", "jump to $x_t$"),
    ("jump to $x_t$", "network"),
    ("encoder again", "squared\nerror"),
    (r"$\hat x_0$", "squared\nerror"),
    ("large image", "LPIPS"),
    ("photograph", "LPIPS"),
]


def drawn(monkeypatch: pytest.MonkeyPatch, boxes=RESSHIFT, arrows=ARROWS):
    """The axes of a diagram."""
    kept = []
    monkeypatch.setattr(diagram, "figure", lambda fig, alt: kept.append(fig))
    viz.block_diagram("ResShift", boxes, arrows, alt="the way of the data")
    return kept[0].axes[0]


def test_resshift_keeps_its_boxes_apart_and_its_lines_off_them(monkeypatch: pytest.MonkeyPatch):
    lines = []
    monkeypatch.setattr(diagram, "_draw_arrow", lambda ax, points, *label, **look: lines.append(points))
    ax = drawn(monkeypatch)
    outlines = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    boxes = [Bbox.from_bounds(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in outlines]
    boxes = boxes[: len(RESSHIFT)]  # the rest are the legend's
    assert len(lines) == len(ARROWS)
    assert {text.get_text() for text in ax.texts} >= {name for name, _, _ in RESSHIFT} | {"at every step"}
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        inner = box.padded(-0.03)
        assert box.x0 > 0 and box.x1 < ax.get_xlim()[1]
        for point in points_along(lines):
            assert not inner.contains(*point), box


def points_along(lines):
    """Points along the lines, 0.02 inches or less apart on every part."""
    for line in lines:
        for (x, y), (to_x, to_y) in pairwise(line):
            count = 1 + int(max(abs(to_x - x), abs(to_y - y)) / 0.02)
            yield from ((x + (to_x - x) * k / count, y + (to_y - y) * k / count) for k in range(count + 1))


def test_the_kinds_differ_without_color(monkeypatch: pytest.MonkeyPatch):
    """By the shape of the outline, its width, or its dashes."""
    looks = [{k: str(v) for k, v in look.items() if k != "facecolor"} for _, look in diagram._KINDS.values()]
    assert all(look != other for number, look in enumerate(looks) for other in looks[:number])
    ax = drawn(monkeypatch)
    legend = {text.get_text() for text in ax.texts}
    assert {"data", "arithmetic", "trained", "frozen", "loss", "next $t$", "in the end"} <= legend
    assert sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) == len(ARROWS)
    few = drawn(monkeypatch, RESSHIFT[:2], ARROWS[:1])
    assert "frozen" not in {text.get_text() for text in few.texts}


@pytest.mark.parametrize(
    ("boxes", "arrows", "message"),
    [
        ([], [], "needs boxes, got none"),
        ([("a", "once")], [], "a box must be 3 texts"),
        ([("a", "later", "data")], [], "the lane of 'a' must be one of once, step, training, got 'later'"),
        ([("a", "once", "cloud")], [], "the kind of 'a' must be one of"),
        ([("a", "once", "data")] * 2, [], "two boxes are named 'a'"),
        (RESSHIFT, [("encoder", "codec")], "each end of the arrow 'encoder' to 'codec' must be one of small image"),
        (RESSHIFT, [("encoder",)], "an arrow must be 2 or 3 texts"),
        (RESSHIFT, [("encoder", "encoder")], "to itself"),
        ([(f"a wide box with the number {k}", "once", "data") for k in range(3)], [], "do not fit beside each other"),
    ],
)
def test_malformed_diagrams_are_refused(boxes, arrows, message):
    with pytest.raises(ValueError, match=message):
        viz.block_diagram("x", boxes, arrows, alt="x")


def test_a_diagram_is_a_figure_with_alt():
    shown = viz.block_diagram("One box", [("a", "once", "data")], [], alt=" a box ")
    assert shown.alt == "a box"
    assert 'width="420"' in shown.html
    with pytest.raises(ValueError, match="say what the figure shows"):
        viz.block_diagram("One box", [("a", "once", "data")], [], alt="")
