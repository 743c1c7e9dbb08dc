"""The package is a house: a file imports from its own room and from rooms below, and from no other package's cellar."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the cellar to the street: modules and folders of srbook, one room a line. CONTRIBUTING.md draws the same.
ROOMS = [
    "spaces frozen images arguments noting numbers names memory files progress random turns settings parts lazy budget "
    "check backbones torchvision_compat results",
    "schedules paths parametrizations objectives samplers exact elbo",
    "degradations",
    "metrics",
    "data",
    "losses",
    "accel",
    "networks",
    "codecs",
    "methods",
    "training",
    "registry",
    "tiling upscaling evaluation doctor",
]
BESIDE = "viz study convert"  # may use every room; no room uses them
STREET = "cli __main__"
FLOOR = {name: floor for floor, room in enumerate([*ROOMS, BESIDE, STREET]) for name in room.split()}
FILES = sorted((ROOT / "srbook").rglob("*.py"))
LINES = 400


def room_of(path):
    return path.relative_to(ROOT / "srbook").parts[0].removesuffix(".py")


def named(path):
    return path.relative_to(ROOT).as_posix()


def imported(tree):
    """Names of modules that a program imports, wherever it does; not those for type checkers alone."""
    for node in running(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def running(node):
    """The nodes of a program but those under `if TYPE_CHECKING`."""
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    for child in ast.iter_child_nodes(node):
        yield from running(child)


def rooms_of(source):
    """The rooms of srbook that a program imports from."""
    found = {name.split(".")[1] for name in imported(ast.parse(source)) if name.startswith("srbook.")}
    return found & FLOOR.keys()


def private(source):
    """The private names of other packages that a program imports or takes from an imported module."""
    tree, modules, found = ast.parse(source), set(), set()
    for node in running(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules |= {(alias.asname or alias.name).split(".")[0] for alias in node.names if foreign(node, alias)}
    found |= {name for name in imported(tree) if not name.startswith("srbook") and hidden(name)}
    for node in running(tree):
        if isinstance(node, ast.Attribute) and hidden(name := ast.unparse(node)) and name.split(".")[0] in modules:
            found.add(name)
    return found


def foreign(node, alias):
    return not (getattr(node, "module", None) or alias.name).startswith("srbook")


def hidden(name):
    return re.search(r"(^|\.)_(?!_)\w+$", name) is not None


def test_the_reader_of_programs_sees_what_it_should():
    lazy = "import torch\ndef f():\n    from srbook.methods import SR3\n    import srbook.cli.jobs\n"
    typed = "if TYPE_CHECKING:\n    from srbook.training import Trainer\nfrom srbook import viz\n"
    assert rooms_of(lazy + typed) == {"methods", "cli", "viz"}
    taken = "import torch\nfrom PIL.Image import _x\ntorch._foreach_lerp_()\nself._own\ntorch.nn.F.__name__"
    assert private(taken) == {"PIL.Image._x", "torch._foreach_lerp_"}


def test_every_room_is_there():
    there = {room_of(path) for path in FILES} - {"__init__"}
    assert there == FLOOR.keys()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_imports_from_its_room_and_from_below(path):
    own, used = room_of(path), rooms_of(path.read_text(encoding="utf-8"))
    if own == "__init__":
        return  # the door: it names what lies behind, and imports it when asked
    assert own in FLOOR, "a new room needs its place in ROOMS"
    assert {room for room in used if FLOOR[room] > FLOOR[own]} == set()
    assert own not in BESIDE.split() or used & set(BESIDE.split()) <= {own}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_is_short_and_keeps_out_of_other_packages_cellars(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LINES
    assert private(source) == set()


def overridden(cls):
    """The private methods that a class writes itself and that a base from another package has too."""
    bases = [base for base in cls.__mro__[1:] if not base.__module__.startswith("srbook")]
    own = [
        name for name, value in vars(cls).items() if inspect.isfunction(value) and value.__module__ == cls.__module__
    ]
    return [name for name in own if hidden(name) and any(hasattr(base, name) for base in bases)]


def test_no_private_method_of_another_package_is_overridden():
    found = []
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if path.stem != "__main__":
            classes = inspect.getmembers(importlib.import_module(name), inspect.isclass)
            found += [(name, of, overridden(cls)) for of, cls in classes if cls.__module__ == name and overridden(cls)]
    assert found == []


def test_the_guide_draws_the_same_house():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    rooms = [re.sub(r"^ *[a-z ]+: *", "", line).split() for line in drawn.splitlines()]
    assert rooms == [room.split() for room in (STREET, BESIDE, *reversed(ROOMS))]
