"""What is installed and what is not: every import has a requirement, and every missing part names its extra."""

import ast
import re
import sys
from pathlib import Path

import jupytext
import pytest
import torch
from packaging.requirements import Requirement

from srbook.data import sample
from srbook.metrics import lpips, musiq
from srbook.parts import PARTS, missing, require
from srbook.study import glue
from srbook.torchvision_compat import import_torchvision
from srbook.training import Trainer, TrainingConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKERS = {"book", "test"}  # the tools of those who build the book; doctor asks for the first of them


def brought(extra: str | None) -> set[str]:
    """The packages that srbook itself (None) or one of its extras asks for, other extras of srbook included."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    packages = set()
    for requirement in map(Requirement, lines):
        inner = requirement.name == PROJECT["name"]
        packages |= set().union(*map(brought, requirement.extras)) if inner else {requirement.name}
    return packages


def own(extra: str | None) -> set[str]:
    """The same without those of other extras."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {name for line in lines if (name := Requirement(line).name) != PROJECT["name"]}


def modules_of(packages: set[str]) -> set[str]:
    return {part.module for part in PARTS if part.package in packages}


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_doctor_looks_at_what_each_extra_brings(extra: str | None):
    looked_at = {part.package for part in PARTS if part.extra == extra}
    if extra in MAKERS:
        assert looked_at <= own(extra)
    else:
        assert looked_at == own(extra)


def imports(code: str) -> list[tuple[str, bool]]:
    """The outermost modules that code imports, and whether the import stands at the outermost level."""
    tree = ast.parse(code)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.module.split(".")[0], node in tree.body))
    return [(name, outermost) for name, outermost in found if name not in {*sys.stdlib_module_names, "srbook"}]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_study_extra_brings_what_a_notebook_imports(path: Path):
    allowed = modules_of(brought(None) | brought("study"))
    cells = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    code = "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", cell, flags=re.MULTILINE) for cell in cells)
    used = {name for name, _ in imports(code)}
    assert "torch" in used and used <= allowed


def test_the_package_imports_at_once_only_what_it_always_brings():
    """Anything else is imported where it is used. (jupyterlab and the like are started, not imported.)"""
    essential, known = modules_of(brought(None)), {part.module for part in PARTS}
    for path in (ROOT / "srbook").rglob("*.py"):
        found = imports(path.read_text(encoding="utf-8"))
        assert {name for name, outermost in found if outermost} <= essential, path
        assert {name for name, _ in found} <= known, path


def train() -> None:
    import srbook

    Trainer(srbook.build("rrdb-tiny"), [], TrainingConfig(steps=1, patch_size=32, batch_size=1), device="cpu")


IMAGE = torch.zeros(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("module", "use", "message"),
    [
        ("accelerate", train, r'accelerate, needed for training.*pip install "srbook\[train\]"$'),
        ("skimage", lambda: sample("chelsea"), r'scikit-image, .* photographs.*pip install "srbook\[samples\]"$'),
        ("sklearn", lambda: sample("china"), r'scikit-learn, .* photographs.*pip install "srbook\[samples\]"$'),
        ("lpips", lambda: lpips(IMAGE, IMAGE, net="squeeze"), r'lpips, .*LPIPS.*pip install "srbook\[lpips\]"$'),
        ("torchvision", import_torchvision, r'torchvision, .*LPIPS.*pip install "srbook\[lpips\]"$'),
        ("pyiqa", lambda: musiq(IMAGE), r'pyiqa, .*MUSIQ.*pip install "srbook\[iqa\]"$'),
        ("IPython", lambda: glue("name", 1), r'ipython, .*notebooks.*pip install "srbook\[study\]"$'),
    ],
)
def test_a_missing_part_names_its_extra(module: str, use, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=message) as caught:
        use()
    assert caught.value.name == module


def test_what_a_part_imports_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    def fail(_name: str):
        raise ModuleNotFoundError("no xyz", name="xyz")

    monkeypatch.setattr("srbook.parts.import_module", fail)
    with pytest.raises(ModuleNotFoundError, match=r'^xyz, needed for training, .* run: pip install "srbook\[train\]"$'):
        require("accelerate")


def test_only_parts_can_be_required():
    with pytest.raises(StopIteration):
        missing("pandas")
