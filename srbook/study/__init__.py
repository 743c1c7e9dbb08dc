"""What only chapters and studies need."""

from srbook.study.notebooks import notebooks
from srbook.study.text import glue

__all__ = ["glue", "notebooks"]
