"""The sliders move in a real browser, opened from disk. Skipped where there is none."""

import re
import shutil
import subprocess

import pytest
import torch

from srbook import viz

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync", "--dump-dom"]

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")


def shown_after(tmp_path, figures, script):
    """The page's markup after `script` has run on the figures."""
    page = tmp_path / "page.html"
    body = "".join(figure.html for figure in figures)
    move = "function move(s, v) { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); }"
    page.write_text(f"<!doctype html><meta charset=utf-8>{body}<script>{move}{script}</script>", encoding="utf-8")
    command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def visible_frames(dom):
    """Alternative texts of the frames that are not hidden."""
    images = [tag for tag in re.findall(r"<img[^>]*>", dom) if "frame" in tag]
    return [re.search('alt="([^"]*)"', tag)[1] for tag in images if not re.search(r"\shidden\b", tag)]


@pytest.fixture
def two_figures(monkeypatch):
    monkeypatch.setenv("SRBOOK_STATIC", "1")

    def draw(row, column=0):
        return torch.full((3, 4, 4), (row + column) / 10)

    grid = viz.explore(draw, {"row": [0, 1, 2], "column": [3, 4]}, alt="frame {row} {column}")
    other = viz.explore(draw, {"row": [5, 6]}, alt="frame {row}")
    return [grid, other]


def test_the_first_frames_show_before_anything_moves(tmp_path, two_figures):
    assert visible_frames(shown_after(tmp_path, two_figures, "")) == ["frame 0 3", "frame 5"]


def test_each_slider_moves_its_own_figure(tmp_path, two_figures):
    script = "const s = document.querySelectorAll('input'); move(s[0], 2); move(s[1], 1);"
    dom = shown_after(tmp_path, two_figures, script)
    assert visible_frames(dom) == ["frame 2 4", "frame 5"]
    assert re.findall(r"<output[^>]*>(\d)</output>", dom) == ["2", "4", "5"]
    assert re.findall(r'aria-valuetext="(\d)"', dom) == ["2", "4", "5"]


def test_the_comparison_follows_its_slider(tmp_path):
    figure = viz.compare(torch.zeros(3, 4, 4), torch.ones(3, 4, 4), labels=("a", "b"), alt="black and white")
    dom = shown_after(tmp_path, [figure], "move(document.querySelector('input'), 25)")
    assert re.search(r'class="srb-compare" style="--at: ?25%;?"', dom)
