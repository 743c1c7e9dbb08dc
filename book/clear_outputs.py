"""Remove outputs from notebooks in place: `python book/clear_outputs.py notebooks/*.ipynb`."""

import sys
from pathlib import Path

import nbformat


def clear_outputs(path: Path) -> bool:
    """Remove outputs and execution counts of one notebook; returns whether there were any."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    run = [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    for cell in run:
        cell.outputs, cell.execution_count = [], None
    if run:
        nbformat.write(notebook, path)
    return bool(run)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if clear_outputs(Path(name)):
            print(f"removed outputs from {name}")
