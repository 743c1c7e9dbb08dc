"""Finished pages: all expected ones exist, fetch nothing from outside, and describe every image.

Math is typeset by MathJax from the `sphinx-mathjax-offline` package, copied beside the pages.
"""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import files
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

# The whole package is 15 MB; a page needs one script and its fonts.
MATHJAX_SCRIPT = "tex-chtml-full.js"
MATHJAX_FILES = (MATHJAX_SCRIPT, "output/chtml")

_EXTERNAL = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
_CSS_FETCH = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
_SCRIPT_FETCH = re.compile(r"""["'](https?://[^"'\s]+\.(?:m?js|css|woff2?|wasm))["']""", re.IGNORECASE)
_WIDGET = "application/vnd.jupyter.widget"

# Attributes whose address a browser fetches without being asked to. Plain links (`a`) are not among them.
_FETCHING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "video": ("src", "poster"),
}
_FETCHING_LINKS = {"dns-prefetch", "icon", "manifest", "modulepreload", "preconnect", "prefetch", "preload"}
_FETCHING_LINKS |= {"apple-touch-icon", "shortcut", "stylesheet"}


class _Audit(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        given = {name: value or "" for name, value in attributes}
        fetched = [given[name] for name in _FETCHING.get(tag, ()) if name in given]
        if tag == "link" and _FETCHING_LINKS & set(given.get("rel", "").lower().split()):
            fetched.append(given.get("href", ""))
        self.problems += [f"<{tag}> fetches {address[:100]}" for address in fetched if _EXTERNAL.match(address)]
        self.problems += [f"style fetches {found}" for found in _CSS_FETCH.findall(given.get("style", ""))]
        if tag == "img" and not given.get("alt", "").strip():
            self.problems.append(f"<img> without alternative text: {given.get('src', '')[:60]}")
        if tag == "script" and given.get("type", "").startswith(_WIDGET):
            self.problems.append("widget state: the page needs a kernel (is SRBOOK_STATIC=1 set?)")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        found = {"style": _CSS_FETCH, "script": _SCRIPT_FETCH}.get(self._inside)
        self.problems += [f"<{self._inside}> names {match}" for match in found.findall(data)] if found else []


def audit(html: str) -> list[str]:
    """What is wrong with a page: anything fetched from outside, images without text, widget state."""
    parser = _Audit()
    parser.feed(html)
    parser.close()
    return parser.problems


def audit_folder(folder: Path) -> Iterator[str]:
    """Problems of all pages and style sheets below `folder`, each with its file."""
    for path in sorted(folder.rglob("*.html")):
        for problem in audit(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(folder)}: {problem}"
    for path in sorted(folder.rglob("*.css")):
        for address in _CSS_FETCH.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(folder)}: fetches {address}"


def mathjax_folder() -> Path:
    """Where the installed MathJax files are.

    Raises:
        ExtensionError: the package is there, its files are not.
    """
    for file in files("sphinx-mathjax-offline") or []:
        if file.name == MATHJAX_SCRIPT:
            return Path(str(file.locate())).parent
    raise ExtensionError(f"sphinx-mathjax-offline holds no {MATHJAX_SCRIPT}; reinstall it: pip install -e '.[book]'")


def _use_local_mathjax(_app: Sphinx, config: Config) -> None:
    config["mathjax_path"] = f"mathjax/{MATHJAX_SCRIPT}"


def _copy_mathjax(app: Sphinx) -> None:
    if app.builder.format == "html":
        source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
        for name in MATHJAX_FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, dirs_exist_ok=True)
            else:
                shutil.copyfile(source / name, target / name)


def _check_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    site_map = app.config.external_site_map
    expected = [Path(app.builder.get_outfilename(page)) for page in site_map if page in app.env.found_docs]
    missing = [page for page in site_map if page not in app.env.found_docs]
    missing += [str(path.relative_to(app.outdir)) for path in expected if not path.is_file()]
    problems = [f"expected page is not there: {name}" for name in missing] + list(audit_folder(Path(app.outdir)))
    if problems:
        raise ExtensionError("the book is built, but not right:\n  " + "\n  ".join(problems))
    print(f"checked {len(expected)} pages: all there, nothing fetched from outside, every image described")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", _use_local_mathjax)
    app.connect("builder-inited", _copy_mathjax)
    app.connect("build-finished", _check_pages, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
