"""The command line: `srbook --help`. One file per command; heavy imports wait until a command runs."""

from typing import Annotated

import typer

import srbook
from srbook.cli import data
from srbook.cli.doctor import doctor
from srbook.cli.errors import Commands
from srbook.cli.evaluate import EvaluateCommand, evaluate
from srbook.cli.notebooks import notebooks
from srbook.cli.presets import presets
from srbook.cli.train import train
from srbook.cli.upscale import upscale

# Plain help: typer's colored boxes cut long lines, and square brackets in our texts are not markup.
app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srbook {srbook.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error (anywhere on the line).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Super-resolution from the command line.

    \b
    Enlarge pictures four times, offline:
        srbook upscale photo.jpg
    Train a small model on the sample photographs, and use it:
        srbook train --preset rrdb-tiny --data samples
        srbook upscale photo.jpg --model runs/rrdb-tiny/weights.safetensors
    Measure it:
        srbook evaluate --model runs/rrdb-tiny/weights.safetensors --data samples
    Read the book in Jupyter:
        srbook notebooks chapters
    What is there, and what is missing:
        srbook presets
        srbook data
        srbook doctor

    Each command explains itself: srbook COMMAND --help. The exit status is 0 when all went well, 1 after an error,
    2 for a wrong command line, and 130 after Ctrl-C.
    """


for command in (upscale, train, evaluate, presets):
    app.command(cls=EvaluateCommand if command is evaluate else None)(command)
app.add_typer(data.app, name="data")
for command in (doctor, notebooks):
    app.command()(command)
