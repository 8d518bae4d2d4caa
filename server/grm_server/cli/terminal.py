"""Messages and exit codes of the commands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

DEFAULT_URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="GRM_CLIENT_URL", help="The server to talk to.")]


def api_key() -> str | None:
    """From the environment only: other users of the machine can read a command line."""
    return os.environ.get("GRM_CLIENT_API_KEY")


def say(message: str) -> None:
    typer.echo(message, err=True)


def fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(f"grm: {message}", err=True)
    raise typer.Exit(code)


def fail_without_extras(error: ImportError) -> NoReturn:
    fail(f"{error}. The server needs its extra packages: run `make setup` in the repository")


def reasons(skipped: Mapping[str, int]) -> str:
    """Suffix for a message: counts of unused rows by reason; empty if all rows were used."""
    return f" (not used: {', '.join(f'{count} {reason}' for reason, count in skipped.items())})" if skipped else ""
