"""`slurper demo`: a whole copy on this machine, with nothing to set up."""

from __future__ import annotations

import typer

from slurper import errors

app = typer.Typer(add_completion=False)


@app.command()
def demo() -> None:
    """Copy 2,000 objects between two real S3 servers on this machine, and compare every byte."""
    try:
        from slurper.demo import run
    except ModuleNotFoundError as error:
        raise errors.ConfigurationError(
            f"the demonstration needs {error.name}: install slurper[demo]"
        ) from error
    if not run.run():
        raise typer.Exit(1)
