"""Values that a page's text takes from its cells."""

from typing import Any

from srbook.parts import require
from srbook.progress import is_static

#: Marks an output that is kept in the notebook and not shown below its cell.
_HIDDEN = "application/papermill.record/"


def glue(name: str, value: Any, display: bool = True) -> None:
    """Keep what Jupyter shows of a value under a name, by which the text shows it again (the role `glue:text`).

    The value becomes an output of the cell, which the book finds when it is built. The form is that of MyST-NB's
    function of this name, so that a notebook needs no part of the book's builder. Jupyter and Colab show the name in
    the text, not the value; so there (everywhere but in static mode) the cell prints the two side by side. In a plain
    script there is no text, and nothing is kept. Needs IPython, or raises ModuleNotFoundError.

    Args:
        name: unique on the page.
        value: anything that Jupyter can display.
        display: whether the cell displays it in the book, too.
    """
    ipython = require("IPython")
    shell = ipython.get_ipython()
    if shell is None:
        if display:
            print(value)
        return
    forms, about = shell.display_formatter.format(value)
    prefix = "" if display else _HIDDEN
    if not display and not is_static():
        print(f"{name} = {value}")
    ipython.display.display(
        {prefix + kind: form for kind, form in forms.items()},
        raw=True,
        metadata={**about, "scrapbook": {"name": name, "mime_prefix": prefix}},
    )
