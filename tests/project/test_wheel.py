"""What a reader has after `pip install "srbook[study]"`, from the wheel and on the pins: notebooks that run.

This builds an environment of its own (1.5 GB, a minute or more), so the quick tests leave it out: `pytest -m wheel`.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from nbclient import NotebookClient

import srbook
from srbook.study import notebooks

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKEST = "01-the-problem.ipynb"


def run(*words: object, cwd: Path) -> str:
    result = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module", autouse=True)
def outside() -> Iterator[None]:
    """Nothing of this checkout or of the tests' own environment may help."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "SRBOOK_STATIC"):
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONNOUSERSITE", "1")
        yield


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("distributions")
    ignored = shutil.ignore_patterns(".*", "_build", "build", "*.egg-info", "__pycache__", "runs")
    shutil.copytree(ROOT, folder / "checkout", ignore=ignored)
    build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    run(sys.executable, "-c", build, cwd=folder / "checkout")
    (source,) = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def environment(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh environment with the wheel and `[study]`, known to Jupyter as the kernel `wheel`."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    wanted = ["--constraint", ROOT / "constraints.txt", f"{distributions[1]}[study]"]
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted, cwd=folder)
    python = str(folder / "bin" / "python")
    spec = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "wheel"}
    (folder / "kernels" / "wheel").mkdir(parents=True)
    (folder / "kernels" / "wheel" / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def chapters(environment: Path) -> Path:
    """The notebooks that the installed command gives."""
    run(environment / "bin" / "srbook", "notebooks", "chapters", cwd=environment)
    return environment / "chapters"


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    client = NotebookClient(notebook, kernel_name="wheel", timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute()


def test_both_distributions_carry_the_notebooks(distributions: tuple[Path, Path]):
    names = {path.name for path in NOTEBOOKS}
    with tarfile.open(distributions[0]) as archive:
        source = [Path(name) for name in archive.getnames()]
    assert {path.name for path in source if path.parts[1:-1] == ("notebooks",)} == names
    wheel = [Path(name) for name in ZipFile(distributions[1]).namelist()]
    assert {path.name for path in wheel if path.parent == Path("srbook/notebooks")} == names
    assert {path.parts[0] for path in wheel} == {"srbook", f"srbook-{srbook.__version__}.dist-info"}


def test_the_environment_has_only_what_study_brings(environment: Path):
    run(environment / "bin" / "python", "-m", "pip", "check", cwd=environment)
    listed = json.loads(run(environment / "bin" / "python", "-m", "pip", "list", "--format", "json", cwd=environment))
    versions = {package["name"]: package["version"] for package in listed}
    assert versions["srbook"] == srbook.__version__ and not {"myst-nb", "nbclient", "pytest"} & set(versions)
    report = run(environment / "bin" / "srbook", "doctor", cwd=environment)
    assert str(environment) in report and "Everything essential works." in report


def test_the_command_gives_the_notebooks_of_this_version(chapters: Path):
    assert {path.name: path.read_text(encoding="utf-8") for path in chapters.iterdir()} == notebooks()


def opening(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells up to the one with the chapter's imports, all imports that come later, and an end of it all."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last = next(number for number, cell in enumerate(cells) if re.search("^from srbook", cell.source, re.MULTILINE))
    later = [node for cell in cells[last + 1 :] for node in ast.walk(ast.parse(cell.source))]
    imports = [ast.unparse(node) for node in later if isinstance(node, ast.Import | ast.ImportFrom)]
    return [*cells[: last + 1], *map(nbformat.v4.new_code_cell, ("\n".join(imports), "%reset -f"))]


def test_every_notebook_starts(chapters: Path):
    openings = [opening(nbformat.read(path, 4)) for path in sorted(chapters.iterdir())]
    assert len(openings) == len(NOTEBOOKS) and min(map(len, openings)) >= 4
    where = nbformat.v4.new_code_cell("import srbook\nprint(srbook.__file__, end='')")
    notebook = nbformat.v4.new_notebook(cells=[*(cell for cells in openings for cell in cells), where])
    execute(notebook, chapters)
    assert Path(notebook.cells[-1].outputs[0].text).is_relative_to(chapters.parent)


def test_a_notebook_runs_to_its_end(chapters: Path):
    """As a reader runs it: with widgets, and every outcome that the chapter claims."""
    notebook = nbformat.read(chapters / QUICKEST, 4)
    execute(notebook, chapters)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("check problem." in output.get("text", "") for output in outputs)
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)
