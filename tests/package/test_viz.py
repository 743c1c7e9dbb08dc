"""Figures as HTML: what the markup holds, pixel by pixel and frame by frame."""

import base64
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from rounding import identical

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from srbook import viz

GENERATOR = torch.Generator().manual_seed(0)
HR = torch.randint(0, 256, (1, 3, 24, 32), generator=GENERATOR).float() / 255
LR = HR[..., ::4, ::4]


class Elements(HTMLParser):
    """All start tags of a fragment with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def pixels(image):
    """The bytes that an `img` element shows."""
    data = base64.b64decode(image["src"].partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def as_bytes(image):
    return (image[0] * 255).round().byte().permute(1, 2, 0).numpy()


def line(slope=1.0):
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, slope])
    return fig


def test_figure_carries_alt_caption_and_its_own_size():
    fig = line()
    shown = viz.figure(fig, alt='  A "line" & more <rising> ', caption="x < y")
    (image,) = Elements(shown.html).all("img")
    assert image["alt"] == 'A "line" & more <rising>'
    assert "<figcaption>x &lt; y</figcaption>" in shown.html
    width, height = fig.get_size_inches()
    assert pixels(image).shape == (round(height * 200), round(width * 200), 3)
    assert int(image["width"]) == round(width * 100)
    assert not plt.fignum_exists(fig.number), "closed, or Jupyter would show it a second time without alt"
    assert repr(shown) == '[figure: A "line" & more <rising>]'
    assert shown._repr_html_() == shown.html


@pytest.mark.parametrize("alt", ["", "   ", None])
def test_every_figure_needs_alt(alt):
    for call in (
        lambda: viz.figure(line(), alt=alt),
        lambda: viz.show_images([HR], titles=["a"], alt=alt),
        lambda: viz.compare(HR, HR, labels=("a", "b"), alt=alt),
        lambda: viz.explore(line, {"slope": [1]}, alt=alt),
    ):
        with pytest.raises(ValueError, match="say what the figure shows"):
            call()


def test_figures_have_any_size_and_one_density():
    random = np.random.default_rng(0)
    for width, height, dpi in random.uniform([0.3, 0.3, 20], [4, 4, 400], (60, 3)):
        fig = Figure(figsize=(width, height), dpi=dpi)
        (image,) = Elements(viz.figure(fig, alt="nothing but a size").html).all("img")
        assert pixels(image).shape[:2] == (pytest.approx(200 * height, abs=1), pytest.approx(200 * width, abs=1))
        assert int(image["width"]) == pytest.approx(100 * width, abs=1)


def test_what_a_figure_leaves_open_is_white():
    fig = Figure(facecolor="none")
    fig.text(0.5, 0.5, "text", fontsize=40)
    levels = pixels(*Elements(viz.figure(fig, alt="text").html).all("img"))
    assert (levels[0, 0] == 255).all() and levels.min() == 0
    assert len(np.unique(levels)) > 10, "letters have soft edges"


# What a reader may have in a matplotlibrc.
SETTINGS = {
    "axes.facecolor": "black",
    "axes.grid": False,
    "axes.linewidth": 5,
    "figure.autolayout": True,
    "figure.dpi": 37,
    "font.family": "serif",
    "image.origin": "lower",
    "lines.linestyle": "--",
    "savefig.bbox": "tight",
    "savefig.dpi": 31,
    "savefig.facecolor": "blue",
    "savefig.pad_inches": 1,
    "savefig.transparent": True,
    "text.color": "red",
    "xtick.direction": "in",
}


def book_figures():
    """Figures by every way that the book draws them."""
    yield viz.loss_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]).html
    yield viz.explore(line, {"slope": [1]}, alt="slope {slope}").html
    viz.use_style()
    fig, ax = plt.subplots()
    ax.imshow([[0, 1], [2, 3]])
    fig.suptitle("Four pixels")
    yield viz.figure(fig, alt="four pixels").html


def test_the_books_figures_do_not_depend_on_a_readers_settings(static):
    with matplotlib.rc_context():
        expected = list(book_figures())
    with matplotlib.rc_context(SETTINGS):
        assert list(book_figures()) == expected


def test_a_figure_of_the_readers_own_keeps_its_style_and_size():
    with matplotlib.rc_context({**SETTINGS, "figure.facecolor": "green", "figure.figsize": (3, 2)}):
        levels = pixels(*Elements(viz.figure(line(), alt="a line").html).all("img"))
    assert levels.shape == (400, 600, 3) and tuple(levels[0, 0]) == (0, 128, 0)


def test_figure_refuses_other_things():
    with pytest.raises(TypeError, match="an Axes"):
        viz.figure(line().axes[0], alt="x")


def test_show_images_enlarges_the_small_one_and_keeps_every_pixel():
    elements = Elements(viz.show_images([LR, HR], titles=["in <LR>", "truth"], alt="why", zoom=3).html)
    small, large = elements.all("img")
    assert (small["alt"], large["alt"]) == ("in <LR>", "truth")
    assert identical(pixels(small), as_bytes(LR).repeat(4, axis=0).repeat(4, axis=1))
    assert identical(pixels(large), as_bytes(HR))
    assert large["width"] == "96" and "srb-pixels" in large["class"]
    assert [f["aria-label"] for f in elements.all("figure")] == ["why"]


def test_show_images_crops_all_alike_and_frames_the_part():
    crop = (8, 4, 12, 16)
    elements = Elements(viz.show_images([LR, HR[0]], titles=["a", "b"], alt="why", crop=crop, zoom=2).html)
    overview, first, second = map(pixels, elements.all("img"))
    assert identical(first, as_bytes(LR).repeat(4, 0).repeat(4, 1)[8:20, 4:20])
    assert identical(second, as_bytes(HR)[8:20, 4:20])
    changed = (overview != as_bytes(HR)).any(axis=2)
    assert changed[6:22, 2:22].any() and not changed[8:20, 4:20].any()
    assert (overview[changed] == overview[changed][0]).all(), "one color marks the frame"


@pytest.mark.parametrize(
    ("images", "titles", "crop", "zoom", "message"),
    [
        ([], [], None, 1, "need images and one title"),
        ([HR], ["a", "b"], None, 1, "titles must be 1 text"),
        ([HR], ["a"], (0, 0, 25, 4), 1, r"leaves the image of size \(24, 32\)"),
        ([HR], ["a"], (-1, 0, 4, 4), 1, "leaves the image"),
        ([HR], ["a"], (0, 0, 0, 4), 1, "leaves the image"),
        ([HR[..., :20], HR], ["a", "b"], (0, 0, 4, 4), 1, "one crop needs images of one size"),
        ([HR], ["a"], None, 1.5, "zoom must be an integer of at least 1, got 1.5"),
        ([HR], ["a"], None, 0, "zoom must be an integer of at least 1, got 0"),
        ([HR * 2], ["result"], None, 1, r"result must lie in \[0, 1\]"),
        ([torch.cat([HR, HR])], ["a"], None, 1, "got a batch of 2"),
    ],
)
def test_show_images_refuses(images, titles, crop, zoom, message):
    with pytest.raises(ValueError, match=message):
        viz.show_images(images, titles=titles, alt="x", crop=crop, zoom=zoom)


def test_compare_holds_both_images_and_a_labeled_slider():
    html = viz.compare(LR, HR, labels=("in & out", "truth"), alt="edges are sharper", zoom=2).html
    elements = Elements(html)
    under, over = elements.all("img")
    assert identical(pixels(under), as_bytes(HR))
    assert identical(pixels(over), as_bytes(LR).repeat(4, 0).repeat(4, 1))
    assert "edges are sharper" in under["alt"] and "srb-before" in over["class"]
    (slider,) = elements.all("input")
    assert slider["type"] == "range" and "in & out" in slider["aria-label"] and "--at" in slider["oninput"]
    assert not elements.all("script")


def test_compare_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"before is \(24, 30\) and after is \(24, 32\)"):
        viz.compare(HR[..., :30], HR, labels=("a", "b"), alt="x")


@pytest.fixture
def static(monkeypatch):
    monkeypatch.setenv("SRBOOK_STATIC", "1")


def test_explore_draws_every_combination_in_row_major_order(static):
    calls = []

    def draw(red, green):
        calls.append((red, green))
        return torch.tensor([red, green, 0.0]).view(3, 1, 1).expand(3, 4, 4) / 255

    axes = {"red": [0, 100, 200], "green": [10, 20]}
    html = viz.explore(draw, axes, alt="red {red}, green {green:.1f}", labels={"red": "Red <level>"}, zoom=8).html
    elements = Elements(html)
    frames = elements.all("img")
    assert calls == [(r, g) for r in axes["red"] for g in axes["green"]]
    assert [tuple(pixels(frame)[0, 0]) for frame in frames] == [(r, g, 0) for r, g in calls]
    assert [frame["alt"] for frame in frames] == [f"red {r}, green {g:.1f}" for r, g in calls]
    assert ["hidden" in frame for frame in frames] == [False] + [True] * 5
    assert frames[0]["width"] == "32"
    sliders = elements.all("input")
    assert [(s["max"], s["aria-label"], s["aria-valuetext"]) for s in sliders] == [
        ("2", "Red <level>", "0"),
        ("1", "green", "10"),
    ]
    assert len(elements.all("output")) == 2 and not elements.all("script")
    assert "\n\n" not in html


def test_explore_takes_figures_and_closes_them(static):
    before = plt.get_fignums()
    html = viz.explore(line, {"slope": [0.5, 1.0]}, alt="slope {slope}").html
    assert len(Elements(html).all("img")) == 2 and plt.get_fignums() == before


@pytest.mark.parametrize(
    ("axes", "alt", "labels", "message"),
    [
        ({}, "x", None, "at least one axis"),
        ({"slope": []}, "x", None, "at least one value"),
        ({"slope": [1]}, "at {sigma}", None, r"cannot be filled in \('sigma'\).*one of \['slope'\]"),
        ({"slope": [1]}, "p(x|y}", None, "double other braces"),
        ({"slope": [1]}, "x", {"sigma": "Noise"}, r"unknown axes \['sigma'\]"),
        ({"slope": range(9), "other": range(9)}, "x", None, "9 x 9 = 81 frames"),
    ],
)
def test_explore_refuses(static, axes, alt, labels, message):
    with pytest.raises(ValueError, match=message):
        viz.explore(line, axes, alt=alt, labels=labels)


def test_explore_refuses_too_many_bytes(static):
    noise = torch.rand(1, 3, 900, 900, generator=GENERATOR)
    with pytest.raises(ValueError, match=r"2 of 3 frames already take .* MB"):
        viz.explore(lambda i: noise, {"i": [0, 1, 2]}, alt="noise")


def test_explore_refuses_other_drawings(static):
    with pytest.raises(TypeError, match="expected a matplotlib Figure, got NoneType"):
        viz.explore(lambda i: None, {"i": [0]}, alt="nothing")


def test_explore_is_a_widget_in_a_live_notebook(monkeypatch):
    monkeypatch.delenv("SRBOOK_STATIC", raising=False)
    seen = []

    def draw(level):
        seen.append(level)
        return torch.full((3, 4, 4), level)

    box = viz.explore(draw, {"level": [0.0, 0.5, 1.0]}, alt="gray {level}", labels={"level": "Level"})
    picture, slider = box.children
    assert seen == [0.0] and slider.description == "Level"
    slider.value = 1.0
    assert seen == [0.0, 1.0]
    (image,) = Elements(picture.value).all("img")
    assert image["alt"] == "gray 1.0" and (pixels(image) == 255).all()


def test_loss_curve_says_where_it_starts_and_ends():
    records = [{"step": i, "loss": 1.0 - i / 200} for i in range(101)] + [{"step": 100, "psnr": 30.0}]
    shown = viz.loss_curve(records, title="It falls")
    # The average over 5 steps: 1 - 2/200 at the start, 1 - 98/200 at the end.
    assert re.fullmatch(r"It falls. Over 100 steps the smoothed loss goes from 0.99 to 0.51.", shown.alt)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"step": 1, "loss": 1.0}, {"step": 2}], "at least two records with a loss, got 1"),
        ([{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("nan")}], "not finite"),
    ],
)
def test_loss_curve_refuses(records, message):
    with pytest.raises(ValueError, match=message):
        viz.loss_curve(records)


def test_use_style_changes_the_session():
    with matplotlib.rc_context():
        viz.use_style()
        assert matplotlib.rcParams["figure.constrained_layout.use"]
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == viz.PALETTE["blue"]
    assert len(set(viz.PALETTE.values())) == len(viz.PALETTE) == 7


def live_outputs(cell, monkeypatch):
    """What a kernel's cell shows in a live notebook."""
    monkeypatch.delenv("SRBOOK_STATIC", raising=False)
    notebook = new_notebook(cells=[new_code_cell(cell)])
    return NotebookClient(notebook, timeout=120, kernel_name="python3").execute().cells[0].outputs


TRAINING = """
from srbook import viz
redraw = viz.live_loss_curve(title="Down", every=0)
redraw([{"step": 1, "loss": 2.0}])  # one point is no curve
redraw([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
redraw([{"step": 1, "loss": 2.0}, {"step": 3, "loss": 0.5}])
"""


def test_live_loss_curve_redraws_in_one_place_of_a_notebook(monkeypatch):
    (output,) = live_outputs(TRAINING, monkeypatch)
    assert output.data["text/plain"] == "[figure: Down. Over 3 steps the smoothed loss goes from 2 to 0.5.]"


@pytest.mark.parametrize("interpreter", [[], ["-m", "IPython", "--no-banner", "--quick"]], ids=["script", "IPython"])
def test_outside_a_notebook_figures_work_and_nothing_is_displayed(tmp_path, interpreter):
    """With the settings of someone who works at a desk, on a machine that has no screen."""
    script = tmp_path / "script.py"
    script.write_text(f"{TRAINING}\nprint(viz.loss_curve([dict(step=1, loss=2.0), dict(step=2, loss=1.0)]))")
    unset = {"SRBOOK_STATIC", "MPLBACKEND", "DISPLAY", "WAYLAND_DISPLAY"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    (tmp_path / "matplotlibrc").write_text("backend: TkAgg")
    environment |= {"MATPLOTLIBRC": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, *interpreter, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Error" not in done.stdout, done.stdout + done.stderr
    assert done.stdout == "[figure: Training loss. Over 2 steps the smoothed loss goes from 2 to 1.]\n"


def test_live_loss_curve_rests_in_static_mode(static, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: pytest.fail("asked for a notebook"))
    viz.live_loss_curve(every=0)([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])


def test_show_images_can_fix_the_columns():
    tiles = [torch.rand(3, 4, 4) for _ in range(4)]
    html = viz.show_images(tiles, titles=list("abcd"), alt="four", columns=4, zoom=2)._repr_html_()
    assert "repeat(4,minmax(0,1fr))" in html
