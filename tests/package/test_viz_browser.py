"""The sliders move in a real browser, opened from disk. Where there is none this is skipped, but fails in CI."""

import os
import re
import shutil
import subprocess

import pytest
import torch

from srbook import viz

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync", "--dump-dom"]


def find_browser():
    """The path of a browser; without one the test is skipped, or fails where the environment says CI."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs a browser: one of {', '.join(BROWSERS)}")
    return found


def shown_after(tmp_path, figures, script):
    """The page's markup after `script` has run on the figures."""
    page = tmp_path / "page.html"
    body = "".join(figure.html for figure in figures)
    move = "function move(s, v) { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); }"
    page.write_text(f"<!doctype html><meta charset=utf-8>{body}<script>{move}{script}</script>", encoding="utf-8")
    command = [find_browser(), *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), (None, pytest.skip.Exception)])
def test_a_missing_browser_is_an_error_in_ci_only(monkeypatch, ci, outcome):
    monkeypatch.setenv("PATH", "")
    if ci:
        monkeypatch.setenv("CI", ci)
    else:
        monkeypatch.delenv("CI", raising=False)
    with pytest.raises(outcome, match="needs a browser: one of chromium,"):
        find_browser()


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
