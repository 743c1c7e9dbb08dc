"""How the command line reports errors: in one clear line, with an exit status."""

import errno
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from srbook.cli.output import escape_unknown_letters, say

EXPECTED = (ValueError, FloatingPointError, OSError, ImportError, MemoryError)


class Commands(TyperGroup):
    """The group of all commands: turns expected errors into one line on stderr, and Ctrl-C into status 130.

    `--debug` may stand anywhere on the line, and shows the traceback. An error that is not expected is a bug, and
    always shows its traceback for the report.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:  # as a path it would be the present folder
            raise typer.BadParameter("one of the words on the line is empty; is a variable of the shell unset?")
        if "--debug" in args:
            args = ["--debug", *(word for word in args if word != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        escape_unknown_letters()
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo("\nStopped.", err=True)
            raise typer.Exit(130) from interrupt
        except BrokenPipeError:
            raise  # the reader of our output has gone (`| head`): nothing to say
        except Exception as error:
            if ctx.params["debug"] or not is_expected(error):
                raise
            say(f"Error: {explain(error)}", err=True)
            raise typer.Exit(1) from error


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    say(f"Warning: {message}", err=True)


def is_expected(error: Exception) -> bool:
    """Whether an error comes from the input or the machine, and not from a bug."""
    if isinstance(error, EXPECTED):
        return True
    return isinstance(error, RuntimeError) and _out_of_memory(error)


def _out_of_memory(error: Exception) -> bool:
    text = str(error).lower()  # torch: OutOfMemoryError on GPUs, a plain RuntimeError on CPUs
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _problem(details: Any) -> str:
    """One of pydantic's problems: of a field, with its value, or of the whole, in our own words."""
    if not details["loc"]:
        return details["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}, got {details['input']!r}"


def explain(error: Exception) -> str:
    """An error as one line: our own messages as they are, those of the operating system and of pydantic rewritten."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        return "; ".join(map(_problem, error.errors()))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}; free some space and run again (nothing half-written was kept)"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if _out_of_memory(error):
        return f"out of memory; a smaller --tile or --batch-size needs less ({type(error).__name__})"
    return " ".join(str(error).split()) or type(error).__name__
