"""What commands print, whatever is in the names of files and whatever the terminal can show."""

import io
import sys

import typer

from srbook.names import printable


def say(line: str, *, err: bool = False) -> None:
    """Print one line; what is not printable in it is escaped."""
    typer.echo(printable(line), err=err)


def escape_unknown_letters() -> None:
    """From now on, letters that the terminal's encoding lacks are escaped, and are no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
