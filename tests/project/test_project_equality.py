"""Numbers that two computations made are not asked to be equal bit for bit: they round differently elsewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = [path for folder in ("tests", "srbook", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
CHAPTERS = (ROOT / "book" / "chapters").glob("*.md")
FILES = sorted({*PROGRAMS, *CHAPTERS} - {ROOT / "tests" / "rounding.py"})
EXACT = {"equal", "array_equal", "assert_equal", "assert_array_equal"}


def exact_comparisons(code: str) -> Iterator[int]:
    """The lines of a program that call an exact comparison, or one with tolerances of zero."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            zero = {word.arg for word in node.keywords if ast.unparse(word.value) in ("0", "0.0")}
            if name in EXACT or zero >= {"rtol", "atol"}:
                yield node.lineno


def programs(path: Path) -> list[str]:
    """A module as it is, or a chapter's cells without magics."""
    if path.suffix == ".py":
        return [path.read_text(encoding="utf-8")]
    cells = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    return [re.sub(r"^(\s*)[%!].*", r"\1pass", cell, flags=re.MULTILINE) for cell in cells]


def test_numbers_are_compared_with_a_tolerance():
    """Copies, integers, and the like go through `identical` in tests/rounding.py, which says when it may be used."""
    found = [
        f"{path.relative_to(ROOT)}: {program.splitlines()[line - 1].strip()}"
        for path in FILES
        for program in programs(path)
        for line in exact_comparisons(program)
    ]
    assert not found, "\n".join(["use torch.testing.assert_close, or for copies `identical`, in", *found])


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import torch\nassert torch.equal(a, b)", [2]),
        ("np.testing.assert_array_equal(a, b)", [1]),
        ("assert_close(a, b, rtol=0, atol=0.0)", [1]),
        ("assert_close(a, b, rtol=0, atol=1e-6)\nassert identical(a, b)", []),
    ],
)
def test_exact_comparisons_are_found(code: str, lines: list[int]):
    assert list(exact_comparisons(code)) == lines
