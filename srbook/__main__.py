"""`python -m srbook` is the same as `srbook`."""

from srbook.cli import app

app(prog_name="srbook")
