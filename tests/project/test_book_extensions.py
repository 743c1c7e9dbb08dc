"""The book's own Sphinx extensions, on books of a page or two."""

import io
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from nbformat import v4
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from srbook.check import Outcome

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "book" / "_ext"
sys.path.insert(0, str(EXTENSIONS))

import book_docstrings  # noqa: E402
import book_equations  # noqa: E402
import book_execution  # noqa: E402
import book_offline  # noqa: E402
import book_outcomes  # noqa: E402
import book_proofs  # noqa: E402

PACKAGE = {
    "srbook/__init__.py": "",
    "srbook/ops/__init__.py": "from srbook.ops.impl import scale\n__all__ = ['scale']\n",
    "srbook/ops/impl.py": '''
def scale(x):
    """Doubles; implements :eq:`eq-scale`."""

class Net:
    """A class; :eq:`eq-net`."""

    def step(self):
        """A method; :eq:`eq-scale`."""
''',
}
API = """# Reference
```{eval-rst}
.. py:function:: srbook.ops.scale

   Doubles :eq:`eq-scale`.

.. py:class:: srbook.ops.impl.Net

   .. py:method:: step
```
"""
CHAPTER = "# Chapter\n\n$$ y = 2 x $$ (eq-scale)\n\n$$ z $$ (eq-net)\n\n$$ w $$ (eq-free)\n"


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def build(folder, extension, *, needs=("myst_parser",), **settings):
    """Build `folder` with one extension: its warnings, and a function that reads a page."""
    warnings = io.StringIO()
    config = {
        "extensions": [*needs, extension],
        "myst_enable_extensions": ["dollarmath"],
        "html_theme": "sphinx_book_theme",
        "html_theme_options": {"repository_url": "https://github.com/o/r", "repository_branch": "main"},
        "master_doc": "index",
        "source_suffix": {".rst": "restructuredtext"},  # its own: extensions write into Sphinx's default
        "numfig": True,
        "exclude_patterns": ["_build"],
        **settings,
    }
    output = folder / "_build"
    with patch_docutils(), docutils_namespace():  # so that one build leaves nothing to the next
        app = Sphinx(folder, None, output / "html", output / "doctrees", "html", config, None, warnings)
        app.build()
    return warnings.getvalue(), lambda page: (output / "html" / f"{page}.html").read_text(encoding="utf-8")


def toctree(*pages):
    return "# Book\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n"


# Equations and code


def test_names_are_those_that_readers_import(tmp_path):
    write(tmp_path, PACKAGE)
    assert book_equations.implementations(tmp_path) == {
        "eq-scale": ["srbook.ops.scale", "srbook.ops.impl.Net.step"],
        "eq-net": ["srbook.ops.impl.Net"],
    }


def test_equations_link_to_code_and_back(tmp_path):
    write(tmp_path, PACKAGE | {"index.md": toctree("chapter", "api"), "chapter.md": CHAPTER, "api.md": API})
    warnings, read = build(tmp_path, "book_equations", nitpicky=True)
    assert warnings == ""
    chapter = read("chapter")
    assert chapter.count("srb-code") == 2, "the third equation has no implementation"
    for name in ("srbook.ops.scale", "srbook.ops.impl.Net.step", "srbook.ops.impl.Net"):
        assert f'href="api.html#{name}"' in chapter
    assert chapter.index("eq-scale") < chapter.index("api.html#srbook.ops.scale") < chapter.index("eq-net")
    assert 'href="chapter.html#equation-eq-scale"' in read("api")


def test_dangling_labels_and_undocumented_functions_are_warnings(tmp_path):
    chapter, api = CHAPTER.replace("(eq-net)", ""), API.replace("srbook.ops.scale", "srbook.ops.other")
    write(tmp_path, PACKAGE | {"index.md": toctree("chapter", "api"), "chapter.md": chapter, "api.md": api})
    warnings, _ = build(tmp_path, "book_equations")
    assert "srbook.ops.impl.Net implements :eq:`eq-net`, but no page has that equation" in warnings
    assert "srbook.ops.scale implements :eq:`eq-scale`, but is not in the API reference" in warnings


# Proofs and tests

TEST_FILE = "class TestGroup:\n    def test_inner(self): ...\n\ndef test_mean(): ...\n"
PROOF = """# Chapter

:::{prf:theorem} The mean wins
:label: thm-mean
It does.
:::

:::{prf:proof}
Expand. {test}`tests/test_a.py::test_mean`
:::
"""
MYST = {"myst_enable_extensions": ["colon_fence"], "needs": ("myst_parser", "sphinx_proof")}
INDEX_PAGE = "# Proofs\n\n```{proofs-index}\n```\n"


@pytest.mark.parametrize(("name", "line"), [("test_mean", 4), ("TestGroup::test_inner", 2)])
def test_find_test(tmp_path, name, line):
    write(tmp_path, {"tests/test_a.py": TEST_FILE})
    assert book_proofs.find_test(tmp_path, f"tests/test_a.py::{name}") == line


@pytest.mark.parametrize("target", ["tests/test_a.py", "tests/none.py::test_mean", "tests/test_a.py::test_gone"])
def test_find_test_refuses(tmp_path, target):
    write(tmp_path, {"tests/test_a.py": TEST_FILE})
    with pytest.raises(ValueError, match=target):
        book_proofs.find_test(tmp_path, target)


def test_proofs_link_to_tests_and_are_listed(tmp_path):
    pages = {"index.md": toctree("chapter", "proofs"), "chapter.md": PROOF, "proofs.md": INDEX_PAGE}
    write(tmp_path, pages | {"tests/test_a.py": TEST_FILE})
    warnings, read = build(tmp_path, "book_proofs", **MYST)
    assert warnings == ""
    link = 'href="https://github.com/o/r/blob/main/tests/test_a.py#L4"'
    assert link in read("chapter")
    index = read("proofs")
    assert link in index and 'href="chapter.html#thm-mean"' in index and "The mean wins" in index

    # The test moves: the page is read again, and both links follow.
    write(tmp_path, {"tests/test_a.py": "\n\n" + TEST_FILE})
    _, read = build(tmp_path, "book_proofs", **MYST)
    assert link.replace("L4", "L6") in read("chapter") and link.replace("L4", "L6") in read("proofs")

    # The test is renamed: a warning, which is fatal in the book.
    write(tmp_path, {"tests/test_a.py": TEST_FILE.replace("test_mean", "test_average")})
    warnings, _ = build(tmp_path, "book_proofs", **MYST)
    assert "tests/test_a.py has no 'test_mean'" in warnings


def test_a_proof_without_a_test_is_a_warning(tmp_path):
    write(tmp_path, {"index.md": PROOF.replace("{test}`tests/test_a.py::test_mean`", "")})
    warnings, _ = build(tmp_path, "book_proofs", **MYST)
    assert "a proof names no test" in warnings


# Pages


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "<script> fetches https://cdn.example/x.js"),
        ('<script src="//cdn.example/x.js"></script>', "<script> fetches"),
        ('<link rel="stylesheet" href="https://fonts.example/a.css">', "<link> fetches"),
        ('<link rel="preconnect" href="https://fonts.example">', "<link> fetches"),
        ('<iframe src="http://video.example"></iframe>', "<iframe> fetches"),
        ('<img src="https://a.example/x.png" alt="x">', "<img> fetches"),
        ('<img src="x.png" srcset="https://a.example/2x.png 2x" alt="x">', "<img> fetches"),
        ("<style>@import 'https://a.example/x.css';</style>", "<style> names https://a.example/x.css"),
        ('<p style="background:url(https://a.example/x.png)">', "style fetches https://a.example/x.png"),
        ('<script>const URL = "https://a.example/lib/index.js"</script>', "<script> names"),
        ('<script type="application/vnd.jupyter.widget-state+json">{}</script>', "widget state"),
        ('<img src="x.png">', "without alternative text"),
        ('<img src="x.png" alt=" ">', "without alternative text"),
    ],
)
def test_audit_finds(html, problem):
    problems = book_offline.audit(f"<html><body>{html}</body></html>")
    assert len(problems) == 1 and problem in problems[0]


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://example.org">a link</a>',
        '<link rel="canonical" href="https://example.org/page.html">',
        '<img src="data:image/png;base64,AAAA" alt="x"><img src="_images/x.png" alt="x">',
        "<script>const a = 'https://example.org/issues/new'</script>",
        "<p>@import url(https://a.example/x.css) in text</p>",
        '<script src="_static/x.js?v=https"></script>',
    ],
)
def test_audit_accepts(html):
    assert book_offline.audit(html) == []


def test_audit_reads_style_sheets_and_names_files(tmp_path):
    write(tmp_path, {"a/x.css": "@font-face{src:url(https://a.example/f.woff2)}", "b.html": "<img src=x>"})
    assert list(book_offline.audit_folder(tmp_path)) == [
        "b.html: <img> without alternative text: x",
        "a/x.css: fetches https://a.example/f.woff2",
    ]


def test_mathjax_is_local_and_complete_enough(tmp_path):
    folder = book_offline.mathjax_folder()
    assert (folder / book_offline.MATHJAX_SCRIPT).stat().st_size > 1e6
    assert len(list((folder / "output/chtml/fonts/woff-v2").glob("*.woff"))) > 20


# Docstrings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("|x| for large |y - z|^2", r"\|x\| for large \|y - z\|^2"),
        ("`a | b` and c | d", r"`a | b` and c \| d"),
        (r"already \| escaped", r"already \| escaped"),
        ("nothing", "nothing"),
    ],
)
def test_bars(line, expected):
    assert book_docstrings.escape_bars(line) == expected


# The execution cache


def checkout(folder):
    """A small project: a package, pins, what executes notebooks, and one notebook with glue, which uses `a`."""
    read = (
        "from pathlib import Path\nHERE = Path(__file__).parent\n\ndef value(): return (HERE / 'a.yml').read_text()\n"
    )
    write(folder, {"srbook/a.py": read, "srbook/a.yml": "1", "srbook/b.py": "", "constraints.txt": "a==1\n"})
    write(folder, {"index.md": toctree("notebooks/one"), "srbook/__init__.py": ""})
    shutil.copy(ROOT / "srbook" / "budget.py", folder / "srbook")
    shutil.copytree(ROOT / "srbook" / "study", folder / "srbook" / "study")
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder / "notebooks")
    shutil.copytree(EXTENSIONS, folder / "book" / "_ext")
    shutil.copy(ROOT / "book" / "execute_chapters.py", folder / "book")
    shutil.copy(ROOT / "_config.yml", folder)
    write_notebook(
        folder / "notebooks" / "one.ipynb",
        "# One\n\nGlued: {glue:text}`number`",
        "import os\nfrom srbook.study import glue\nprint('static', os.environ['SRBOOK_STATIC'])",
        "from srbook.a import value\nprint('value', value())",
        "glue('number', 42, display=False)\nopen('ran', 'a').write('x')",
        "from IPython.display import HTML\nHTML('<b id=out>shown</b>')",
    )
    return folder


def write_notebook(path, text, *code):
    cells = [v4.new_markdown_cell(text), *map(v4.new_code_cell, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def own_arithmetic(monkeypatch):
    """That of the machine, whichever the tests run in."""
    for name in book_execution.ARITHMETIC:
        monkeypatch.delenv(name, raising=False)


def test_the_folder_follows_budget_and_pins(tmp_path, own_arithmetic):
    root = checkout(tmp_path)
    before = book_execution.execution_key(root, "quick")
    assert before.startswith("quick-") and book_execution.execution_key(root, "full") != before
    (root / "srbook/a.py").write_text("changed")
    assert book_execution.execution_key(root, "quick") == before
    (root / "constraints.txt").write_text("a==2\n")
    assert book_execution.execution_key(root, "quick") != before


def test_the_key_follows_the_arithmetic(tmp_path, own_arithmetic, monkeypatch):
    root = checkout(tmp_path)
    keys = [book_execution.execution_key(root, "quick")]
    for name, value in [("ATEN_CPU_CAPABILITY", "default"), ("MKL_CBWR", "COMPATIBLE"), ("MKL_CBWR", "AVX2")]:
        monkeypatch.setenv(name, value)
        keys.append(book_execution.execution_key(root, "quick"))
    assert len(set(keys)) == 4 and len({key.split("-")[1] for key in keys}) == 1


def test_a_cache_of_other_pins_goes_and_one_of_another_arithmetic_stays(tmp_path, own_arithmetic, monkeypatch):
    root = checkout(tmp_path)
    folder = book_execution.cache_folder(root)
    for name in ("quick-old", "full-old", "quick.avx2-old"):
        (folder.parent / name).mkdir(parents=True)
    book_execution.open_cache(root)
    assert {path.name for path in folder.parent.iterdir()} - {folder.name} == {"full-old", "quick.avx2-old"}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda package: (package / "a.py").write_text("changed"), False),
        (lambda package: (package / "a.py").unlink(), False),
        (lambda package: (package / "data/x.yml").write_text("changed"), False),
        (lambda package: (package / "data/new.yml").write_text(""), False),  # that folder was listed
        (lambda package: (package / "new.yml").write_text(""), True),
        (lambda package: (package / "data/new.py").write_text(""), True),
        (lambda package: (package / "b.py").write_text("changed"), True),
        (lambda package: (package / "later.py").write_text(""), False),  # it was looked for
        (lambda package: None, True),
    ],
)
def test_an_execution_holds_while_nothing_changes_that_it_used(tmp_path, change, holds):
    root = checkout(tmp_path)
    write(root, {"srbook/data/x.yml": "1"})
    before = book_execution.snapshot(root)
    used = {path: before[path] for path in ("srbook/a.py", "srbook/data/x.yml", "srbook/data")}
    cache, _ = book_execution.open_cache(root)
    notebook = v4.new_notebook(cells=[v4.new_code_cell("1", execution_count=1)])
    book_execution.keep(cache, tmp_path / "a.ipynb", notebook, 1.5, {**used, "srbook/later.py": "absent"})
    change(root / "srbook")
    cache, seconds = book_execution.open_cache(root)
    assert bool(cache.list_cache_records()) == holds and seconds["a"] == 1.5


def uses_of(root):
    """The paths that each executed notebook used."""
    cache, _ = book_execution.open_cache(root)
    return {Path(record.uri).stem: set(record.data["uses"]) for record in cache.list_cache_records()}


def test_the_chapters_on_one_method_hold_when_another_changes(tmp_path):
    """The imports of the chapter on SR3, in the package as it is."""
    root = checkout(tmp_path)
    shutil.rmtree(root / "srbook")
    shutil.copytree(ROOT / "srbook", root / "srbook", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    cells = nbformat.read(ROOT / "notebooks" / "06-sr3.ipynb", 4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    imports = [line for line in lines if re.match(r"(from|import) srbook", line) and not line.endswith("(")]
    write_notebook(root / "notebooks" / "one.ipynb", "# One", *imports, "srbook.build('sr3-tiny')")
    assert execute_chapters(root, 1).returncode == 0
    used = uses_of(root)["one"]
    assert {"srbook/paths.py", "srbook/methods/sr3.py", "srbook/presets/sr3-tiny.yaml"} <= used
    (root / "srbook/methods/ecdp.py").write_text("changed")
    assert "one" in uses_of(root)
    (root / "srbook/paths.py").write_text("changed")
    assert "one" not in uses_of(root)


def test_a_kernel_with_another_package_is_refused(tmp_path):
    root = checkout(tmp_path / "here")
    other = checkout(tmp_path / "there")
    command = [sys.executable, "book/execute_chapters.py"]
    result = subprocess.run(command, cwd=root, env=own(other), capture_output=True, text=True)
    assert result.returncode == 1 and f"the kernel imports srbook from {other}, not from {root}" in result.stdout


def test_usual_seconds_are_those_of_chapters():
    assert set(book_execution.USUAL_SECONDS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_the_longest_comes_first_by_what_it_last_took(tmp_path, monkeypatch):
    monkeypatch.setattr(book_execution, "USUAL_SECONDS", {"a": 3, "b": 2})
    assert book_execution.last_seconds(tmp_path / "quick-new") == {"a": 3, "b": 2}
    notebook = v4.new_notebook(cells=[v4.new_code_cell("1", execution_count=1)])
    for name, seconds in [("quick-old", 1.5), ("full-old", 9.0)]:
        book_execution.keep(get_cache(tmp_path / name), tmp_path / "a.ipynb", notebook, seconds, {})
    seconds = book_execution.last_seconds(tmp_path / "quick-new")
    assert seconds == {"a": 1.5, "b": 2}
    assert book_execution.longest_first(["a", "b", "new"], seconds) == ["new", "b", "a"]


def article(page):
    """The part of a page that a chapter writes."""
    return re.search("<article.*</article>", page, re.DOTALL)[0]


def run(root, *command):
    return subprocess.run([sys.executable, *command], cwd=root, env=own(root), capture_output=True, text=True)


def own(root):
    """The environment in which that checkout's package is the one."""
    return {**os.environ, "PYTHONPATH": str(root)}


def run_notebooks(root, *options):
    return run(
        root, "-m", "pytest", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", *options, "notebooks"
    )


def execute_chapters(root, jobs):
    return run(root, "book/execute_chapters.py", "--jobs", str(jobs))


def book_of(root):
    """Build the pages of a checkout."""
    patterns = ["_build", "notebooks/conftest.py"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))  # for the kernels
        return build(
            root,
            "book_execution",
            needs=("myst_nb",),
            nb_execution_mode="cache",
            nb_execution_raise_on_error=True,
            exclude_patterns=patterns,
        )


def wait_for(other, mine):
    """Code of a cell that ends when `other` has begun, so that two of them pass only when they run at once."""
    return f'''
import os, time
from pathlib import Path
assert os.environ["OMP_NUM_THREADS"] == "1"
Path("{mine}").touch()
until = time.monotonic() + 120
while not Path("{other}").exists():
    assert time.monotonic() < until, "alone"
    time.sleep(.05)
'''


@pytest.mark.parametrize("program", ["chapters", "tests"])
def test_notebooks_run_side_by_side_and_the_book_uses_what_passed(tmp_path, program):
    """One project for all of it: each kernel takes seconds."""
    root = checkout(tmp_path)
    notebooks = root / "notebooks"
    write(root, {"srbook/lists.py": "import os\nfrom srbook.a import HERE\nos.listdir(HERE)\n"})
    # Waiting comes first, and cells enough after it: xdist hands out the next file before the last one is done.
    unused = "open('../srbook/b.py').close()"
    write_notebook(notebooks / "none.ipynb", "# None", wait_for("two", "none"), unused, "1", "2")
    late = "def late():\n    import srbook.lists\nlate()"
    write_notebook(notebooks / "two.ipynb", "# Two", wait_for("none", "two"), late, "1", "2")
    write_notebook(notebooks / "wrong.ipynb", "# Wrong", "1", "value = 3\nassert value == 4, 'outcome'", "2")
    side_by_side = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    result = execute_chapters(root, 2) if program == "chapters" else run_notebooks(root, *side_by_side)

    assert result.returncode == 1 and "assert value == 4" in result.stdout and "outcome" in result.stdout
    lines = result.stdout.splitlines()
    for name in ("none", "one", "two", "wrong"):
        assert lines.count(f"{name}: started") == 1
    for name in ("none", "one", "two"):
        assert len([line for line in lines if re.fullmatch(rf"{name}: done in \d+ s", line)]) == 1
    if program == "chapters":
        assert re.search("^wrong: failed after \\d+ s in code cell 2$", result.stdout, re.MULTILINE)
        assert "1 of 4 chapters failed: wrong" in result.stdout
    else:
        assert "wrong: failed in Cell 1" in result.stdout

    found = uses_of(root)
    always = {"srbook", "srbook/__init__.py"}
    study = {path.relative_to(ROOT).as_posix() for path in (ROOT / "srbook" / "study").glob("*.py")}
    assert set(found) == {"none", "one", "two"}, "what failed is not kept"
    assert found["none"] == set()
    assert found["two"] == always | {"srbook/a.py", "srbook/lists.py"}
    assert {"srbook/a.py", "srbook/a.yml"} <= found["one"]
    assert found["one"] <= always | study | {"srbook/a.py", "srbook/a.yml", "srbook/study"}

    for name in ("none", "two", "wrong"):  # a book of one chapter
        (notebooks / f"{name}.ipynb").unlink()
    ran = notebooks / "ran"
    warnings, read = book_of(root)
    assert (warnings, ran.read_text()) == ("", "x"), "the book must not execute what was executed before"
    before = read("notebooks/one")
    assert "Glued: 42" in re.sub("<[^>]*>", "", before)
    assert "static 1" in before and "<b id=out>shown</b>" in before

    (root / "srbook/b.py").write_text("B = 2\n")
    book_of(root)
    assert ran.read_text() == "x", "it does not use that module"
    (root / "srbook/a.yml").write_text("2")
    _, read = book_of(root)
    assert ran.read_text() == "xx", "it reads that file"
    assert article(read("notebooks/one")) == article(before).replace("value 1", "value 2"), (
        "who executed a chapter does not show"
    )
    assert "1 chapters, none changed" in execute_chapters(root, 1).stdout
    assert ran.read_text() == "xx"


def test_an_interrupted_run_keeps_what_was_done_and_leaves_no_kernel(tmp_path):
    root = checkout(tmp_path)
    endless = "import time\nwhile True:\n    open('alive', 'w').close()\n    time.sleep(0.05)"
    write_notebook(root / "notebooks" / "endless.ipynb", "# Endless", endless)
    command = [sys.executable, "book/execute_chapters.py", "--jobs", "2"]
    with subprocess.Popen(command, cwd=root, env=own(root), stdout=subprocess.PIPE, text=True) as process:
        alive = root / "notebooks" / "alive"
        assert any(line.startswith("one: done") for line in process.stdout)
        wait_until(alive.exists)
        process.terminate()
        assert "the chapters that were done are kept" in process.stdout.read()
    assert process.returncode == 130
    wait_until(lambda: time.time() - alive.stat().st_mtime > 3)
    cache = get_cache(book_execution.cache_folder(root))
    assert [Path(record.uri).stem for record in cache.list_cache_records()] == ["one"]


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_outcomes_stand_beside_their_margins(tmp_path, monkeypatch):
    listed = {
        "a.b": Outcome("a.b", "one", "nothing | changes", 1.0, 1.0),
        "c.d": Outcome("c.d", "one", "it moves", -math.inf, 7.0),
    }
    common = {"processor": "A chip", "commit": "0123456789abcdef", "date": "2026-01-02"}
    quick = [
        {**common, "chapter": "one", "budget": "quick", "seed": seed, "arithmetic": arithmetic, "training": "float32"}
        | {"values": {"a.b": 1.0, "c.d": value}}
        for seed, arithmetic, value in [(0, "own", 1.0), (1, "own", 2.0), (0, "avx2", 3.0)]
    ]
    runs = [*quick, {**quick[0], "budget": "full", "values": {"c.d": 4.5}}]
    monkeypatch.setattr("srbook.study.margins.outcomes", lambda: listed)
    monkeypatch.setattr(book_outcomes, "stored_result", lambda name: {"runs": runs})
    index = "# Claims\n\n```{outcomes}\n```\n\n```{toctree}\nnotebooks/one\n```\n"
    write(tmp_path, {"index.md": index, "notebooks/one.md": "# The chapter\n"})
    warnings, read = build(tmp_path, "book_outcomes", **MYST)
    assert warnings == ""
    page = re.sub(r"<[^>]+>", " ", read("index"))
    assert re.search(r"The chapter.*Seeds 0, 1 on A chip: avx2 \(float32\), own \(float32\)", page, re.S)
    assert re.search(r"nothing \| changes\s+1\s+1\s+0\s+never changes", page)
    assert re.search(r"it moves\s+at most 7\s+1 to 3\s+1\s+5\.0 deviations\s+4\.5", page)
