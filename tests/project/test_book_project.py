"""What must agree across the repository's files."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import srbook
from srbook.check import outcomes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "book" / "chapters").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXT_SUFFIXES = {".cff", ".cfg", ".css", ".ipynb", ".md", ".py", ".toml", ".txt", ".yaml", ".yml", ""}


def tracked_files():
    """Files of the repository: what git knows or would add, or everything outside the usual ignored folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]
    ignored = {".venv", "_build", ".git"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not ignored & set(path.relative_to(ROOT).parts)]


# Chapters


def cells(notebook):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def test_every_chapter_is_a_pair():
    assert [path.stem for path in SOURCES] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_pairs_agree(path):
    source, notebook = jupytext.read(path), jupytext.read(ROOT / "notebooks" / f"{path.stem}.ipynb")
    assert cells(source) == cells(notebook), "run `make notebooks`"
    assert source.metadata.kernelspec == notebook.metadata.kernelspec == {
        "display_name": "Python 3", "language": "python", "name": "python3"
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    assert not [cell.source for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    assert "widgets" not in notebook.metadata


def toc_files(node):
    if isinstance(node, dict):
        yield from (node[key] for key in ("root", "file") if key in node)
        for value in node.values():
            yield from toc_files(value)
    elif isinstance(node, list):
        for item in node:
            yield from toc_files(item)


def test_the_table_of_contents_lists_what_is_there():
    listed = list(toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
    assert len(listed) == len(set(listed))
    for name in listed:
        assert (ROOT / f"{name}.md").is_file() or (ROOT / f"{name}.ipynb").is_file(), name
    pages = [path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")]
    pages = [page for page in pages if not page.startswith("book/chapters/")]
    assert set(listed) == {*pages, *(f"notebooks/{path.stem}" for path in NOTEBOOKS)}


def checks(path):
    """The first arguments of all `check(...)` calls in a chapter."""
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "code":
            code = re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE)  # magics are not Python
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
                    yield ast.literal_eval(node.args[0])


def test_every_outcome_is_checked_once_in_its_chapter():
    used = sorted((name, path.stem.split("-", 1)[1]) for path in SOURCES for name in checks(path))
    assert used == sorted((name, outcome.chapter) for name, outcome in outcomes().items())


def test_every_public_module_is_in_the_reference():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md"))
    documented = set(re.findall(r"automodule:: (\S+)", pages))
    packages = {f"srbook.{path.parent.name}" for path in (ROOT / "srbook").glob("*/__init__.py")}
    assert packages - {"srbook.cli", "srbook.presets", "srbook.weights"} <= documented


# Addresses and versions


def test_the_repository_has_one_address():
    address = PROJECT["urls"]["Repository"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/[\w-]+", address)
    name = address.rsplit("/", 1)[1]
    pattern = re.compile(rf"github\.com[/:]([\w.-]+/{name})\b", re.IGNORECASE)
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__):
            for found in pattern.findall(path.read_text(encoding="utf-8", errors="ignore")):
                assert f"https://github.com/{found}" == address, path
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == address


def test_the_project_has_one_version():
    """A release changes pyproject.toml; everything else that names a version must follow."""
    version = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert srbook.__version__ == citation["version"] == version
    for path in NOTEBOOKS:
        source = "\n".join(cell.source for cell in jupytext.read(path).cells)
        assert re.findall(r"%pip install (.*)", source) == [f'-q "srbook[study]=={version}"'], path


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def extras():
    return PROJECT["optional-dependencies"]


def test_constraints_pin_every_direct_dependency_within_its_range():
    pinned = [lines for name, lines in extras().items() if name != "iqa"]  # its sixty packages are left to pip
    direct = [Requirement(line) for lines in [PROJECT["dependencies"], *pinned] for line in lines]
    for requirement in direct:
        if requirement.name != PROJECT["name"]:
            found = [pin for pin in pins() if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
            assert found, f"{requirement.name} has no pin; run `make lock`"
            for pin in found:
                (version,) = [part.version for part in pin.specifier]
                assert str(pin.specifier).startswith("==") and requirement.specifier.contains(version), requirement


def test_constraints_hold_nothing_for_gpus_only():
    assert not [pin.name for pin in pins() if pin.name.startswith(("nvidia-", "cuda-", "triton"))]


def test_extras_name_each_other_correctly():
    for line in [line for lines in extras().values() for line in lines]:
        if (requirement := Requirement(line)).name == PROJECT["name"]:
            assert requirement.extras <= set(extras())


def test_conda_environment_agrees_with_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == PROJECT["name"] and pip == "pip"
    assert SpecifierSet(PROJECT["requires-python"]).contains(re.fullmatch(r"python=(\d+\.\d+)", python)[1])
    constraint, editable = packages["pip"]
    assert (ROOT / constraint.removeprefix("--constraint ")).is_file()
    named = re.fullmatch(r"--editable \.\[([\w,]+)\]", editable)[1].split(",")
    assert set(named) <= set(extras())


def test_makefile_and_ci_use_the_extras_and_the_pins():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"call install,(\w+)", makefile)) == {"book", "lab", "test"} <= set(extras())
    assert "--constraint constraints.txt" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# What make does


def make(*arguments, **environment):
    """The result of make, told nothing by a make that runs these tests."""
    outer = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "ARITHMETIC", "PROCESSOR", "TESTS", "JOBS"}
    environment = {name: value for name, value in os.environ.items() if name not in outer} | environment
    return subprocess.run([shutil.which("make"), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("given", "allowed"), [("ARITHMETIC=avx3", "avx2 plain"), ("PROCESSOR=Z80", "EPYC-Rome Skylake-Client")]
)
def test_make_refuses_unknown_words(given, allowed):
    result = make("-n", "test", given)
    assert result.returncode == 2 and f"{given} is not known; use one of {allowed}" in result.stderr


def test_make_tests_in_another_arithmetic():
    tests, notebooks = (
        line for line in make("-n", "test", "ARITHMETIC=plain", "JOBS=3").stdout.splitlines() if "-m pytest" in line
    )
    for line in (tests, notebooks):
        assert line.startswith("env ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE ")
        assert "-n 3 " in line
    commands = [
        line
        for line in make("-n", "book", "ARITHMETIC=avx2").stdout.splitlines()
        if " ONEDNN_MAX_CPU_ISA=AVX2 " in line
    ]
    assert ["execute_chapters" in commands[0], "jupyter-book build" in commands[1]] == [True, True]


@pytest.mark.parametrize(
    ("given", "tests", "notebooks"),
    [
        ("TESTS=tests/package/test_adam.py", True, False),
        ("TESTS=notebooks/05-one-path.ipynb", False, True),
        ("TESTS=-m arithmetic", True, False),
        ("PROCESSOR=EPYC-Rome", True, False),
        ("JOBS=1", True, True),
    ],
)
def test_make_tests_what_it_is_told(given, tests, notebooks):
    commands = make("-n", "test", given).stdout
    assert ("--durations 5" in commands, "--nbval-lax" in commands) == (tests, notebooks)
    assert ("qemu-x86_64 -cpu EPYC-Rome" in commands) == given.startswith("PROCESSOR")


def test_make_says_what_the_emulation_needs(tmp_path):
    result = make("emulator", "PROCESSOR=EPYC-Rome", PATH=str(tmp_path))
    assert result.returncode == 2 and "apt-get install qemu-user" in result.stdout


# The package


HEAVY = ["accelerate", "IPython", "ipywidgets", "lpips", "matplotlib", "pandas", "PIL", "pydantic", "safetensors"]
HEAVY += ["scipy", "skimage", "sklearn", "torchvision", "tqdm", "typer", "yaml"]


@pytest.mark.parametrize("module", ["srbook", "srbook.viz"])
def test_imports_stay_light(module):
    script = f"import torch, sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {name.split(".")[0] for name in output.split()} & set(HEAVY) == set()


def test_no_machine_paths_or_package_hosts_in_the_repository():
    machine = re.compile(r"(?<![\w.])/(?:work|root|tmp)/\w")
    hosts = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs")
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not machine.search(text), f"{path}: {machine.search(text)[0]}"
            assert not hosts.search(text), path


def test_third_party_scripts_are_not_committed():
    assert not [path for path in tracked_files() if path.suffix in {".js", ".woff", ".woff2", ".wasm"}]
