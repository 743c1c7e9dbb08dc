"""Proofs name the tests that check them: the role `test`, the rule that no proof goes without, and the index."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode
from sphinx_proof.nodes import proof_node

LOGGER = logging.getLogger(__name__)


class ProofsIndex(nodes.General, nodes.Element):
    """Stands where the index goes until every page is read."""


@dataclass(frozen=True)
class Proof:
    """A proof found on a page.

    Attributes:
        page: name of the page.
        label: label of the statement before it; empty when there is none.
        kind: "theorem", "lemma", ...
        title: the statement's title.
        tests: what its `test` roles name, each with its address in the repository.
    """

    page: str
    label: str
    kind: str
    title: str
    tests: tuple[tuple[str, str], ...]


def find_test(root: Path, target: str) -> int:
    """Line of the test `tests/package/test_x.py::test_name`, or `::TestClass::test_name`, below `root`.

    Raises:
        ValueError: no such file, or no such test in it.
    """
    file, *names = target.split("::")
    path = root / file
    if not names or not path.is_file():
        raise ValueError(f"test {target!r}: write path::name, with a path from the repository's root that exists")
    body: Iterable[ast.AST] = ast.parse(path.read_text(encoding="utf-8")).body
    line = 0
    for name in names:
        match = [node for node in body if getattr(node, "name", None) == name]
        if not match:
            raise ValueError(f"test {target!r}: {file} has no {name!r}; was it renamed?")
        line, body = match[0].lineno, getattr(match[0], "body", [])  # type: ignore[attr-defined]
    return line


class TestRole(SphinxRole):
    """`` {test}`tests/package/test_x.py::test_name` ``: a link to a test that exists."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        root, file = Path(self.env.app.confdir), self.text.split("::")[0]
        self.env.note_dependency(str(root / file))  # read the page again when the test file changes
        line = 0
        try:
            line = find_test(root, self.text)
        except ValueError as error:
            LOGGER.warning(str(error), location=self.get_location())
        options = self.env.config.html_theme_options
        base = f"{options['repository_url']}/blob/{options['repository_branch']}"
        return [_test_link(self.text, f"{base}/{file}#L{line}")], []


def _test_link(target: str, address: str) -> nodes.reference:
    return nodes.reference("", "", nodes.literal("", target), refuri=address, internal=False, test=target)


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    proofs, statement = [], None
    for node in doctree.findall(nodes.Element):
        if isinstance(node, proof_node):
            tests = tuple((link["test"], link["refuri"]) for link in node.findall(nodes.reference) if "test" in link)
            if not tests:
                LOGGER.warning("a proof names no test; end it with {test}`tests/...::...`", location=node)
            given = statement or {}
            title = given.get("title", "").strip().removeprefix("(").removesuffix(")")
            label, kind = given.get("label", ""), given.get("realtype", "statement")
            proofs.append(Proof(app.env.docname, label, kind, title, tests))
        elif "realtype" in node.attributes:
            statement = node.attributes
    _proofs(app.env)[app.env.docname] = proofs


def _proofs(env: BuildEnvironment) -> dict[str, list[Proof]]:
    if not hasattr(env, "srbook_proofs"):
        env.srbook_proofs = {}  # type: ignore[attr-defined]
    return env.srbook_proofs  # type: ignore[attr-defined]


class ProofsDirective(SphinxDirective):
    """A table of every proof of the book and the tests that check it."""

    def run(self) -> list[nodes.Node]:
        self.env.srbook_proofs_page = self.env.docname  # type: ignore[attr-defined]
        return [ProofsIndex()]


def _refresh_index(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    page = getattr(env, "srbook_proofs_page", None)
    return [page] if page in env.found_docs else []


def _fill_index(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for placeholder in list(doctree.findall(ProofsIndex)):
        pages = _proofs(app.env)
        rows = [_row(app, docname, proof) for page in sorted(pages) for proof in pages[page]]
        placeholder.replace_self(_table(["Statement", "Page", "Checked by"], rows))


def _row(app: Sphinx, docname: str, proof: Proof) -> list[nodes.Node]:
    numbers = app.env.toc_fignumbers.get(proof.page, {}).get(proof.kind, {}).get(proof.label, ())
    number = ".".join(map(str, numbers))
    name = " ".join(part for part in (proof.kind.title(), number) if part)
    text = f"{name}: {proof.title}" if proof.title else name
    statement = nodes.paragraph("", "", _link(app, docname, proof.page, proof.label, text))
    title = app.env.titles[proof.page].astext()
    tests = nodes.paragraph()
    for target, address in proof.tests:
        tests += [_test_link(target, address), nodes.Text(" ")]
    return [statement, nodes.paragraph("", "", _link(app, docname, proof.page, "", title)), tests]


def _link(app: Sphinx, docname: str, page: str, target: str, text: str) -> nodes.reference:
    return make_refnode(app.builder, docname, page, target, nodes.inline("", text))


def _table(headers: list[str], rows: list[list[nodes.Node]]) -> nodes.table:
    head = nodes.thead("", _table_row([nodes.paragraph("", header) for header in headers]))
    body = nodes.tbody("", *map(_table_row, rows))
    columns = [nodes.colspec(colwidth=100 // len(headers)) for _ in headers]
    return nodes.table("", nodes.tgroup("", *columns, head, body, cols=len(headers)))


def _table_row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def _purge(_app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _proofs(env).pop(docname, None)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("test", TestRole())
    app.add_directive("proofs-index", ProofsDirective)
    app.add_node(ProofsIndex)
    app.connect("doctree-read", _collect)
    app.connect("env-purge-doc", _purge)
    app.connect("env-updated", _refresh_index)
    app.connect("doctree-resolved", _fill_index)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
