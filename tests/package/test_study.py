"""What chapters need around the mathematics: values for the text, and the notebooks themselves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

import srbook
from srbook.study import glue, notebooks

ROOT = Path(__file__).parents[2]
VALUES = "['12.3', 42, 1 / 3, Markdown('**bold**'), HTML('<b>figure</b>'), Image(b'bytes', format='png')]"


def outputs(*cells: str) -> list[list[NotebookNode]]:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata=kernel)
    NotebookClient(notebook, timeout=60).execute()
    return [cell.outputs for cell in notebook.cells]


def test_glue_says_what_the_builder_of_the_book_says():
    """MyST-NB's own function is the reference: the same outputs, in the same form, shown or hidden."""
    imports = "import myst_nb\nfrom IPython.display import HTML, Image, Markdown\nfrom srbook.study import glue"
    loop = "for number, value in enumerate({values}):\n    {function}(f'value {{number}}', value{more})"
    variants = [(function, more) for more in ("", ", display=False") for function in ("myst_nb.glue", "glue")]
    cells = [loop.format(values=VALUES, function=function, more=more) for function, more in variants]
    theirs, ours, theirs_hidden, ours_hidden = outputs(f"%env SRBOOK_STATIC=1\n{imports}", *cells)[1:]
    assert ours == theirs and ours_hidden == theirs_hidden
    assert [output.metadata.scrapbook.name for output in ours_hidden] == [f"value {number}" for number in range(6)]
    assert {kind.split("/")[-1] for output in ours for kind in output.data} == {"plain", "html", "markdown", "png"}
    assert all(kind.startswith("application/papermill") for output in ours_hidden for kind in output.data)


def test_glue_prints_what_jupyter_does_not_put_into_the_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SRBOOK_STATIC", raising=False)
    _, (printed, kept), (displayed,) = outputs(
        "from srbook.study import glue", "glue('gain', '1.2', display=False)", "glue('error', 3)"
    )
    assert printed.text == "gain = 1.2\n" and kept.metadata.scrapbook.name == "gain"
    assert displayed.data == {"text/plain": "3"}


def test_glue_in_a_plain_script_is_print(capsys: pytest.CaptureFixture[str]):
    glue("shown", 42)
    glue("kept", 43, display=False)
    assert capsys.readouterr().out == "42\n"


def test_the_notebooks_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert list(notebooks()) == [path.name for path in paths]
    for path, text in zip(paths, notebooks().values(), strict=True):
        stored, given = json.loads(path.read_bytes()), json.loads(text)
        assert stored["metadata"].pop("jupytext") and given == stored
    package = tmp_path / "site-packages" / "srbook"
    (package / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "01-the-problem.ipynb", package / "notebooks")
    (tmp_path / "site-packages" / "notebooks").mkdir()
    (tmp_path / "site-packages" / "notebooks" / "other.ipynb").touch()  # of somebody else
    monkeypatch.setattr(srbook, "__file__", str(package / "__init__.py"))
    assert list(notebooks()) == ["01-the-problem.ipynb"]
    shutil.rmtree(package / "notebooks")
    with pytest.raises(FileNotFoundError, match="carries no notebooks"):
        notebooks()


def test_the_room_of_the_chapters_is_light():
    script = "import sys; import srbook.study; print('torch' in sys.modules, 'IPython' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "False False\n"
