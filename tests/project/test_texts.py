"""What the texts of the project must not say, and where they must agree."""

import ast
import re
import subprocess
from itertools import takewhile
from pathlib import Path

import jupytext
import pytest

from srbook.methods import METHODS

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "book" / "chapters").glob("*.md"))
TEXTS = {".md", ".py", ".yml", ".yaml", ".toml", ".bib", ".cff", ""}
NUMBERED = re.compile(r"\bchapters?[\s~]+(\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven)\b", re.I)


def texts():
    """Every text of the project but its history, this file, and the chapters, which have a test of their own."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs git's list of files")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    others = {ROOT / "CHANGELOG.md", Path(__file__), *SOURCES}
    return [path for path in paths if path.is_file() and path.suffix in TEXTS and path not in others]


def numbered(text):
    return [" ".join(found[0].split()) for found in NUMBERED.finditer(text)]


def test_the_pattern_finds_typed_numbers():
    said = "In Chapter 3 and chapters\n14 and 15, chapter two"
    assert numbered(said) == ["Chapter 3", "chapters 14", "chapter two"]
    assert numbered("eleven chapters; 5 of a chapter; chapters/05-one-path.md") == []


def test_no_text_names_a_chapter_by_its_number():
    """Chapters move: link to them by name."""
    found = {path.relative_to(ROOT).as_posix(): numbered(path.read_text(encoding="utf-8")) for path in texts()}
    assert {name: says for name, says in found.items() if says} == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_chapter_names_another_by_its_number(path):
    cells = jupytext.read(path).cells
    assert [says for cell in cells if cell.cell_type == "markdown" for says in numbered(cell.source)] == []


def test_attributes_are_described_one_by_one():
    """The reference takes the second of two names for a class, and the build stops there."""
    for path in (ROOT / "srbook").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                section = (ast.get_docstring(node) or "").partition("Attributes:\n")[2]
                assert re.findall(r"^ {4}(\w+, \w.*?):", section, re.MULTILINE) == [], path


def test_no_code_names_a_chapter_by_its_number():
    cells = [cell for path in SOURCES for cell in jupytext.read(path).cells]
    assert [says for cell in cells if cell.cell_type == "code" for says in numbered(cell.source)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_links_between_chapters_lead_somewhere(path):
    """In the form that Jupyter and the book both follow: the name of a notebook in the same folder."""
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:\s]+)\)", cell.source):
                assert target.endswith(".ipynb") and (ROOT / "notebooks" / target).is_file(), target


# A method's choices

CHOICES = ["anchor", "sigma", "schedule", "transition", "prediction", "solver"]
SENTENCE = "six choices: anchor, sigma, schedule, transition, prediction, and solver"
PAGES = ["README.md", "book/index.md", "book/vocabulary.md", "book/chapters/05-one-path.md"]


def rows_of(page, first):
    """The cells of the table whose first column has that head, without citations."""
    lines = re.sub(r" \{cite\}`\w+`", "", (ROOT / page).read_text(encoding="utf-8")).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


@pytest.mark.parametrize("page", PAGES)
def test_the_choices_have_one_list(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    listed = [found.split(".")[0] for found in re.findall(r"six choices: ([^:]*)", text)]
    assert listed and {f"six choices: {words}" for words in listed} == {SENTENCE}


def test_the_table_of_methods_is_the_same_everywhere():
    table = rows_of("README.md", "method")
    assert table == rows_of("book/index.md", "method") and table[0] == ["method", *CHOICES]
    assert [row[0] for row in rows_of("book/vocabulary.md", "word")[2:]] == CHOICES


def test_methods_that_are_not_there_are_called_planned():
    names = [row[0] for row in rows_of("README.md", "method")[2:]]
    present = {name.lower().replace("-", "") for name in names if not name.startswith("*")}
    assert present == set(METHODS) - {"bicubic", "regression"}  # which have no path
