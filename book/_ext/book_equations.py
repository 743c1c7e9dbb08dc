"""Links from labeled equations to the functions that implement them, and checks that none dangles.

The way back is the docstring's own ":eq:`label`", which the API reference turns into a link.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
_EQUATION = re.compile(r":eq:`([^`]+)`")
_Definition = ast.FunctionDef | ast.ClassDef


def implementations(root: Path) -> dict[str, list[str]]:
    """Names by equation label, from the docstrings of functions, classes, and methods below `root`/srbook.

    A name is the one readers import: `srbook.metrics.psnr` rather than the file that defines it, when the
    package's `__init__.py` lists it in `__all__`.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((root / "srbook").rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for name, definition in _definitions(ast.parse(path.read_text(encoding="utf-8"))):
            for label in _EQUATION.findall(ast.get_docstring(definition) or ""):
                found.setdefault(label, []).append(_public_name(root, module, name))
    return found


def _definitions(tree: ast.Module) -> Iterator[tuple[str, _Definition]]:
    for node in tree.body:
        if isinstance(node, _Definition):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{item.name}", item) for item in node.body if isinstance(item, _Definition))


def _public_name(root: Path, module: str, name: str) -> str:
    package = module.rpartition(".")[0]
    init = root.joinpath(*package.split(".")) / "__init__.py"
    if package != "srbook" and init.is_file() and name.split(".")[0] in exported(init):
        return f"{package}.{name}"
    return f"{module}.{name}"


def exported(path: Path) -> list[str]:
    """The names in a module's `__all__`, read without importing it; empty when it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def _scan(app: Sphinx) -> None:
    app.env.srbook_implementations = implementations(Path(app.confdir))  # type: ignore[attr-defined]


def _link_equations(app: Sphinx, doctree: nodes.document) -> None:
    found: dict[str, list[str]] = app.env.srbook_implementations  # type: ignore[attr-defined]
    for equation in list(doctree.findall(nodes.math_block)):
        names = found.get(equation.get("label") or "")
        if names and not app.env.docname.startswith("book/api/"):
            line = nodes.paragraph("", "Code: ", classes=["srb-code"])
            for index, name in enumerate(names):
                line += [nodes.Text(", ")] if index else []
                line += _reference(name, app.env.docname)
            equation.parent.insert(equation.parent.index(equation) + 1, line)


def _reference(name: str, docname: str) -> nodes.Node:
    return addnodes.pending_xref(
        "",
        nodes.literal("", name),
        refdomain="py",
        reftype="obj",
        reftarget=name,
        refdoc=docname,
        refexplicit=True,
        refwarn=False,  # `_check` says it better
    )


def _check(app: Sphinx, env: BuildEnvironment) -> None:
    equations = env.get_domain("math").equations  # type: ignore[attr-defined]
    documented = env.get_domain("py").objects  # type: ignore[attr-defined]
    for label, names in env.srbook_implementations.items():  # type: ignore[attr-defined]
        if label not in equations:
            LOGGER.warning("%s implements :eq:`%s`, but no page has that equation", ", ".join(names), label)
        for name in names:
            if name not in documented:
                LOGGER.warning("%s implements :eq:`%s`, but is not in the API reference", name, label)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _scan)
    app.connect("doctree-read", _link_equations)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
