"""`srbook notebooks`."""

from pathlib import Path
from typing import Annotated

import typer


def notebooks(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the notebooks; made if absent.", show_default=False)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace notebooks that differ.")] = False,
) -> None:
    """Copy the chapters of the book as notebooks, those of the installed version.

    A notebook in DIR that was edited or run is not replaced: then nothing is copied, and the differing files are
    named. The notebooks need pip install "srbook[study]"; JupyterLab with the extensions that show theorems, equations,
    and links comes with pip install "srbook[lab]".

    \b
    Examples:
        srbook notebooks chapters
        jupyter lab chapters
    After an update, take the new chapters instead of those in the folder:
        srbook notebooks chapters --overwrite
    """
    from srbook.files import atomic_path
    from srbook.study import notebooks as installed

    copies = {directory / name: text.encode() for name, text in installed().items()}
    differ = [target for target, content in copies.items() if target.exists() and target.read_bytes() != content]
    if differ and not overwrite:
        named = ", ".join(map(str, differ))
        raise ValueError(
            f"edited, or of another version: {named}; add --overwrite to replace, or choose another folder"
        )
    for target, content in copies.items():
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    typer.echo(f"{len(copies)} notebooks in {directory}; open them with: jupyter lab {directory}")
