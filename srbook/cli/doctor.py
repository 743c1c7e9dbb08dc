"""`srbook doctor`."""

import typer


def doctor() -> None:
    """Report what works here, what is missing, and how to get it.

    The exit status is 1 only if something essential is missing or broken.

    \b
    Example:
        srbook doctor
    """
    from srbook.doctor import diagnose

    marks = {"ok": "ok     ", "note": "note   ", "missing": "missing", "broken": "BROKEN "}
    sections = diagnose()
    for title, findings in sections.items():
        typer.echo(f"{title}")
        width = max((len(finding.name) for finding in findings), default=0)
        for finding in findings:
            typer.echo(f"  {marks[finding.state]}  {finding.name:<{width}}  {finding.text}")
        typer.echo()
    fatal = [finding.name for findings in sections.values() for finding in findings if finding.fatal]
    if fatal:
        typer.echo(f"srbook cannot work before this is mended: {', '.join(fatal)}", err=True)
        raise typer.Exit(1)
    typer.echo("Everything essential works.")
