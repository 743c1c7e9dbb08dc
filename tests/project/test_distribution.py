"""What a package index gets: the package, all of it, and a page that shows its picture."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def touch(_source, copied):
    Path(copied).touch()


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory):
    """The names in a source distribution, made by the build backend from a copy of the repository."""
    copy = tmp_path_factory.mktemp("repository")
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in (
        "benchmarks",
        "book",
        "notebooks",
        "srbook",
        "tests",
        "tools",
    ):  # empty files: the names are what counts
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored, copy_function=touch)
    script = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", script], cwd=copy, check=True, capture_output=True)
    (archive,) = (copy / "dist").iterdir()
    with tarfile.open(archive) as files:
        names = [PurePosixPath(*PurePosixPath(file.name).parts[1:]) for file in files if file.isfile()]
    return {name.as_posix() for name in names if "srbook.egg-info" not in name.parts}


def test_a_source_distribution_is_the_package_and_nothing_else(source_distribution):
    files = [path.relative_to(ROOT) for path in (ROOT / "srbook").rglob("*") if path.is_file()]
    package = {path.as_posix() for path in files if not any(part.startswith((".", "__pyc")) for part in path.parts)}
    about = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert source_distribution == package | about


def test_the_readme_shows_its_picture_on_a_package_index():
    """There a relative address leads nowhere."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    branch = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["branch"]
    folder = f"{project['urls']['Repository']}/raw/{branch}/"
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / project["readme"]).read_text(encoding="utf-8"))
    assert pictures
    for address in pictures:
        assert address.startswith(folder) and (ROOT / address.removeprefix(folder)).is_file(), address
