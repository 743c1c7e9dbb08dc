"""`srbook data`."""

from pathlib import Path
from typing import Annotated

import typer

from srbook.cli.tables import columns

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def data(ctx: typer.Context) -> None:
    """List image sets: which are here, and where to put the others.

    \b
    Examples:
        srbook data
        srbook data verify Set5
        srbook data samples
    """
    if ctx.invoked_subcommand is not None:
        return
    from srbook.data import catalog

    root = catalog.data_root()
    typer.echo(f"Image sets below {root} (set SRBOOK_DATA for another folder)\n")
    rows = [("set", "use", "images", "here", "where to put it")]
    for name, image_set in catalog.sets().items():
        paths = catalog.locate(name)
        here = f"{len(paths)} images" if paths else "no"
        place = "" if paths else " and ".join(image_set.layouts[0])
        rows.append((name, image_set.use, f"{image_set.count}", here, place))
    for line in columns(rows):
        typer.echo(line)
    typer.echo("\nsrbook train --data and srbook evaluate --data take a set by its name, or any folder.")
    typer.echo("The sample photographs need no download: srbook data samples")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A folder, or a set of srbook data.", show_default=False)],
) -> None:
    """Read every picture of a folder, or compare a set with what it should be.

    Of a set, the number of images is compared, and their pixels where known. The exit status is 1 if something differs
    or a picture cannot be read.

    \b
    Examples:
        srbook data verify photos/
        srbook data verify Set5
    """
    from srbook.data import catalog

    folder = Path(name).is_dir()
    report = catalog.verify_folder(name) if folder else catalog.verify(name)
    compared = "read" if folder else f"{report.hashed} compared by their pixels"
    typer.echo(f"{report.name}: {report.count} of {report.expected} images, {compared}")
    for problem in report.problems:
        typer.echo(f"  {problem}", err=True)
    if report.problems:
        raise typer.Exit(1)
    if folder:
        typer.echo("  all readable")
        return
    known = "all as it should be" if report.hashed else "all readable; srbook does not know the pixels of this set"
    typer.echo(f"  {known}")


@app.command()
def samples() -> None:
    """List the sample photographs with author, license, and source.

    \b
    Example:
        srbook data samples
    """
    from srbook.data import samples as catalog
    from srbook.data.photographs import HELD_OUT

    for name, sample in catalog().items():
        typer.echo(f"{name} ({'held out' if name in HELD_OUT else 'training'})")
        typer.echo(f"    {sample.about}")
        stored = "stored as JPEG" if sample.compressed else "stored without loss"
        typer.echo(f"    {sample.author}. {sample.license}. {sample.source}. {stored}, in {sample.package}.")
