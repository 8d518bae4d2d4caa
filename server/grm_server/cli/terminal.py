"""Messages and exit codes of the commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from grm_client.connection import clean_api_key, server_url

DEFAULT_URL = "http://127.0.0.1:8000"
INSTALL = "in a clone of the repository: `make setup`, or pip install ./clients '.[cpu]' (a GPU: '.[cuda]')"
"""The packages are on no index: pip would find nothing, or something else."""


def check_url(url: str | None) -> str | None:
    """Ends the command with one line if no server can have this URL."""
    if url is not None:
        try:
            server_url(url)
        except ValueError as error:
            fail(str(error))
    return url


Url = Annotated[str, typer.Option(envvar="GRM_CLIENT_URL", help="The server to talk to.", callback=check_url)]


def api_key() -> str | None:
    """From the environment only: other users of the machine can read a command line."""
    try:
        return clean_api_key(os.environ.get("GRM_CLIENT_API_KEY"))
    except ValueError as error:
        fail(f"GRM_CLIENT_API_KEY: {error}")


def say(message: str) -> None:
    typer.echo(message, err=True)


def fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(f"grm: {message}", err=True)
    raise typer.Exit(code)


def fail_without_extras(error: ImportError) -> NoReturn:
    fail(f"{error}. This command needs the server's packages; {INSTALL}")


def reasons(skipped: Mapping[str, int]) -> str:
    """Suffix for a message: counts of unused rows by reason; empty if all rows were used."""
    return f" (not used: {', '.join(f'{count} {reason}' for reason, count in skipped.items())})" if skipped else ""
