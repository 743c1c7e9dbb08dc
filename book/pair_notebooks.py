"""Bring chapters and notebooks together, and remove outputs: `python book/pair_notebooks.py`.

A chapter in book/chapters is the source of its notebook in notebooks/. Only a notebook that was edited while its
chapter was not is carried into the chapter. Where both were edited, nothing at all is changed. "Edited" means
neither as in git's last commit nor as after the last run, which _build/pairs.json remembers. The times of files
have no say: any checkout changes them.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path

import jupytext
from jupytext.config import load_jupytext_config
from nbformat import NotebookNode

from srbook.files import atomic_path

MYST = "md:myst"
KEPT = ("tags", "slideshow")  # the metadata of a cell that jupytext.toml lets into a chapter


def main(root: Path) -> int:
    """Pair all chapters of the book in `root`; returns the exit status."""
    memory = root / "_build" / "pairs.json"
    remembered = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    files = [*root.glob("book/chapters/*.md"), *root.glob("notebooks/*.ipynb")]
    texts, problems = {}, []
    for name in sorted({path.stem for path in files}):
        try:
            texts |= pair(root, name, remembered.get(name))
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        print(*problems, "Nothing was changed.", sep="\n", file=sys.stderr)
        return 1
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"wrote {path.relative_to(root).as_posix()}")
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    memory.parent.mkdir(exist_ok=True)
    notebooks = {path: jupytext.reads(text, "ipynb") for path, text in texts.items() if path.suffix == ".ipynb"}
    memory.write_text(json.dumps({path.stem: fingerprint(made) for path, made in notebooks.items()}, indent=1))
    return 0


def pair(root: Path, name: str, remembered: str | None) -> dict[Path, str]:
    """What the files of one chapter should hold.

    Raises:
        ValueError: that cannot be decided, or a file cannot be read; says what to do.
    """
    chapter_path, notebook_path = root / "book" / "chapters" / f"{name}.md", root / "notebooks" / f"{name}.ipynb"
    chapter_name, notebook_name = f"book/chapters/{name}.md", f"notebooks/{name}.ipynb"
    keep_chapter = f"\n  to keep the chapter: jupytext --update --to ipynb --output {notebook_name} {chapter_name}"
    keep_notebook = f"\n  to keep the notebook: jupytext --to {MYST} --output {chapter_name} {notebook_name}"
    if not chapter_path.exists():
        raise ValueError(f"{notebook_name} has no chapter: delete it, or{keep_notebook}")
    chapter = jupytext.reads(chapter_path.read_text(encoding="utf-8"), MYST)
    texts = {}
    if notebook_path.exists():
        try:
            notebook = jupytext.reads(notebook_path.read_text(encoding="utf-8"), "ipynb")
        except ValueError as error:
            advice = f"delete it, or bring back an earlier one: git checkout HEAD -- {notebook_name}"
            raise ValueError(f"{notebook_name} cannot be read ({str(error)[:60]}...): {advice}") from error
        known = {remembered, committed(chapter_path, MYST), committed(notebook_path, "ipynb")} - {None}
        if fingerprint(notebook) not in {fingerprint(chapter), *known}:
            if fingerprint(chapter) not in known:
                why = "both were edited" if known else "which one was edited is known only where git has committed them"
                raise ValueError(f"{chapter_name} and {notebook_name} differ, and {why}{keep_chapter}{keep_notebook}")
            chapter.cells = notebook.cells
            texts[chapter_path] = jupytext.writes(chapter, MYST, config=load_jupytext_config(str(chapter_path)))
            chapter = jupytext.reads(texts[chapter_path], MYST)
            if fingerprint(chapter) != fingerprint(notebook):
                raise ValueError(f"{notebook_name} holds what {chapter_name} cannot, such as a pasted picture")
        keep_ids(chapter.cells, notebook.cells)
    texts[notebook_path] = jupytext.writes(chapter, "ipynb") + "\n"
    return texts


def fingerprint(notebook: NotebookNode) -> str:
    """A hash of what a chapter and its notebook have in common: cells with their tags, without outputs."""
    contents = [
        [cell.cell_type, cell.source.strip(), [cell.metadata.get(key) or [] for key in KEPT], cell.get("attachments")]
        for cell in notebook.cells
        if cell.source.strip()
    ]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def committed(path: Path, form: str) -> str | None:
    """The fingerprint of a file in git's last commit; None without git or without such a file."""
    if shutil.which("git") is None:
        return None
    shown = subprocess.run(["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True)
    return fingerprint(jupytext.reads(shown.stdout.decode(), form)) if shown.returncode == 0 else None


def keep_ids(cells: list[NotebookNode], earlier: list[NotebookNode]) -> None:
    """Give cells the ids that they, or the ones in their places, had earlier."""
    before, after = ([(cell.cell_type, cell.source) for cell in listed] for listed in (earlier, cells))
    for change, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if change in ("equal", "replace"):
            for old, new in zip(earlier[start:end], cells[first:last], strict=False):
                new.id = old.id


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
