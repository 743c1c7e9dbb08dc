"""`make notebooks`: a chapter is the source of its notebook, and no edit is lost. In repositories made for a test."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book"))
from pair_notebooks import main  # noqa: E402

CHAPTER = """---
jupytext:
  formats: book/chapters///md:myst,notebooks///ipynb
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# One

A sentence.

```{code-cell} ipython3
:tags: [hide-input]

x = 1
```

Another sentence.
"""


def git(root, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path, capsys):
    """A book of two chapters and their notebooks, without git."""
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    (tmp_path / ".gitignore").write_text("_build/")
    for name in ("01-one", "02-two"):
        (tmp_path / "book" / "chapters" / f"{name}.md").write_text(CHAPTER)
    assert main(tmp_path) == 0
    shutil.rmtree(tmp_path / "_build")
    capsys.readouterr()
    return tmp_path


@pytest.fixture
def repository(folder):
    """The same, committed."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "A book")
    return folder


@pytest.fixture
def chapter(folder):
    return folder / "book" / "chapters" / "01-one.md"


@pytest.fixture
def notebook(folder):
    return folder / "notebooks" / "01-one.ipynb"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def ids(path):
    return [cell.id for cell in nbformat.read(path, nbformat.NO_CONVERT).cells]


def sources(path):
    return [cell.source for cell in jupytext.read(path).cells]


def files(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".git" not in path.parts}


def test_nothing_changes_where_nothing_was_edited(repository, chapter, capsys):
    before = files(repository)
    os.utime(chapter, (0, 0))  # older than its notebook, as a checkout may leave it
    assert main(repository) == 0
    assert {path: files(repository)[path] for path in before} == before and not capsys.readouterr().out


@pytest.mark.parametrize("age", [0, 2**31])
def test_an_edited_chapter_wins_however_old_it_is(repository, chapter, notebook, age, capsys):
    before = ids(notebook)
    edit(chapter, "A sentence.", "A better sentence.")
    text = chapter.read_text()
    os.utime(chapter, (age, age))
    assert main(repository) == 0
    assert chapter.read_text() == text
    assert sources(notebook)[0] == "# One\n\nA better sentence." and ids(notebook) == before
    assert capsys.readouterr().out == "wrote notebooks/01-one.ipynb\n"


def test_cells_keep_their_ids_when_others_come_and_go(repository, chapter, notebook):
    heading, code, text = ids(notebook)
    edit(chapter, "Another", "```{code-cell} ipython3\ny = 2\n```\n\nAnother")
    edit(chapter, "# One\n\nA sentence.\n", "")
    assert main(repository) == 0
    after = ids(notebook)
    assert after[0] == code and after[2] == text and heading not in after and len(set(after)) == 3


def test_a_chapter_can_be_edited_again_before_it_is_committed(repository, chapter, notebook):
    for sentence in ("Second.", "Third."):
        edit(chapter, sources(chapter)[-1], sentence)
        assert main(repository) == 0
        assert sources(notebook)[-1] == sentence


def test_an_edited_notebook_is_carried_into_its_chapter(repository, chapter, notebook, capsys):
    before, text = ids(notebook), chapter.read_text()
    edit(notebook, "x = 1", "x = 3")
    os.utime(notebook, (0, 0))
    assert main(repository) == 0
    assert chapter.read_text() == text.replace("x = 1", "x = 3")
    assert sources(notebook)[1] == "x = 3" and ids(notebook) == before
    assert capsys.readouterr().out.startswith("wrote book/chapters/01-one.md\n")
    edit(chapter, "x = 3", "x = 4")  # and on, without a commit, in either
    assert main(repository) == 0 and sources(notebook)[1] == "x = 4"
    edit(notebook, "x = 4", "x = 5")
    assert main(repository) == 0 and sources(chapter)[1] == "x = 5"


def test_what_jupyter_adds_is_no_edit_and_is_removed(repository, notebook):
    before = notebook.read_bytes()
    run = nbformat.read(notebook, nbformat.NO_CONVERT)
    run.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    run.metadata.language_info = {"name": "python", "version": "3.12"}
    run.cells[1].outputs = [nbformat.v4.new_output("stream", text="1")]
    run.cells[1].execution_count = 7
    run.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    run.cells[0].metadata["tags"] = []
    run.cells[1].source += "\n"
    run.cells.append(nbformat.v4.new_code_cell())
    nbformat.write(run, notebook)
    assert main(repository) == 0 and notebook.read_bytes() == before


def test_a_tag_is_an_edit(repository, chapter, notebook):
    edit(notebook, "hide-input", "remove-cell")
    assert main(repository) == 0 and ":tags: [remove-cell]" in chapter.read_text()


def suggested(message):
    return dict(re.findall(r"to keep the (chapter|notebook): (jupytext .*)", message))


@pytest.mark.parametrize(("keep", "expected"), [("chapter", "x = 5"), ("notebook", "x = 3")])
@pytest.mark.parametrize("known", ["repository", "folder"])
def test_where_both_were_edited_nothing_changes_until_one_is_chosen(
    request, folder, chapter, notebook, known, keep, expected, capsys
):
    request.getfixturevalue(known)
    before = ids(notebook)
    edit(chapter, "x = 1", "x = 5")
    edit(notebook, "x = 1", "x = 3")
    (folder / "notebooks" / "02-two.ipynb").unlink()  # could be made, but waits
    left = files(folder)
    assert main(folder) == 1 and files(folder) == left
    said = capsys.readouterr().err
    assert "book/chapters/01-one.md and notebooks/01-one.ipynb differ" in said
    assert ("git" in said) == (known == "folder"), "without git it says what it needs"
    subprocess.run([sys.executable, "-m", *suggested(said)[keep].split()], cwd=folder, check=True, capture_output=True)
    assert main(folder) == 0
    assert sources(chapter)[1] == sources(notebook)[1] == expected and ids(notebook) == before


def test_without_git_the_last_run_is_remembered(folder, chapter, notebook, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert main(folder) == 0
    edit(notebook, "x = 1", "x = 3")
    assert main(folder) == 0 and sources(chapter)[1] == "x = 3"
    edit(chapter, "x = 3", "x = 4")
    assert main(folder) == 0 and sources(notebook)[1] == "x = 4"


def test_a_missing_notebook_is_made_and_a_missing_chapter_is_reported(repository, chapter, notebook, capsys):
    notebook.unlink()
    assert main(repository) == 0 and sources(notebook) == sources(chapter)
    chapter.unlink()
    left = files(repository)
    assert main(repository) == 1 and files(repository) == left
    said = capsys.readouterr().err
    assert "notebooks/01-one.ipynb has no chapter" in said
    subprocess.run([sys.executable, "-m", *suggested(said)["notebook"].split()], cwd=repository, check=True)
    assert main(repository) == 0 and chapter.read_text() == CHAPTER


def test_what_a_chapter_cannot_hold_is_not_thrown_away(repository, notebook, capsys):
    pasted = nbformat.read(notebook, nbformat.NO_CONVERT)
    pasted.cells[0].source += "\n![](attachment:a.png)"
    pasted.cells[0].attachments = {"a.png": {"image/png": "aGVsbG8="}}
    nbformat.write(pasted, notebook)
    left = files(repository)
    assert main(repository) == 1 and files(repository) == left
    assert "notebooks/01-one.ipynb holds what book/chapters/01-one.md cannot" in capsys.readouterr().err


def test_a_notebook_broken_by_a_merge_is_reported(repository, notebook, capsys):
    notebook.write_text("<<<<<<< ours\n" + notebook.read_text())
    left = files(repository)
    assert main(repository) == 1 and files(repository) == left
    assert "notebooks/01-one.ipynb cannot be read" in capsys.readouterr().err


def test_the_books_own_pairs_need_no_change(tmp_path):
    shutil.copytree(ROOT / "book" / "chapters", tmp_path / "book" / "chapters")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    before = files(tmp_path)
    assert main(tmp_path) == 0
    assert {path: files(tmp_path)[path] for path in before} == before
