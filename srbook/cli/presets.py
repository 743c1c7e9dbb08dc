"""`srbook presets`."""

from typing import Annotated

import typer

from srbook.cli.tables import columns


def presets(
    name: Annotated[str | None, typer.Argument(help="Print this preset in full, as YAML.")] = None,
) -> None:
    """List the presets, or print one in full.

    The list says which method, how many parameters, and whether trained weights ship with srbook.

    \b
    Examples:
        srbook presets
        srbook presets rrdb-small
    """
    from srbook import registry

    if name is not None:
        import yaml

        preset = registry.read_preset(name).model_dump(mode="json")
        typer.echo(yaml.safe_dump(preset, sort_keys=False, allow_unicode=True).rstrip())
        return

    shipped = registry.trained()
    rows = [("name", "method", "parameters", "weights", "summary")]
    for each in registry.presets():
        preset = registry.read_preset(each)
        rows.append(
            (
                each,
                preset.method,
                f"{registry.count_parameters(each):,}",
                "ship" if each in shipped else "train it",
                preset.summary,
            )
        )
    for line in columns(rows):
        typer.echo(line)
