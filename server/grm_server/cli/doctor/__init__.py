"""`grm doctor`: checks an installation, or a running server, and says what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer

from grm_server.cli.doctor import machine, models, packages
from grm_server.cli.doctor.finding import Finding, as_json, as_text, fail, healthy, ok
from grm_server.cli.doctor.server import check_server
from grm_server.engine.vllm.args import on_cpu
from grm_server.settings import Settings, SettingsError, load_settings


def doctor(
    url: Annotated[str | None, typer.Option(help="Check the server that runs there instead, with a request.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="As of `grm serve`; GRM_ variables are read too.")
    ] = None,
) -> None:
    """Check the installation and say what to do. Ends with 1 if the server would not work."""
    key = os.environ.get("GRM_CLIENT_API_KEY")
    found = list(_installation(os.environ, settings or ()) if url is None else check_server(url, key))
    typer.echo(as_json(found) if json else as_text(found))
    raise typer.Exit(0 if healthy(found) else 1)


def _installation(environment: Mapping[str, str], overrides: Sequence[str]) -> Iterator[Finding]:
    try:
        settings = load_settings(environment, overrides)
    except SettingsError as error:
        yield fail("settings", str(error), "`grm settings` lists all; the checks below are of the defaults")
        settings = Settings()
    else:
        yield _usable(settings)
    installation = packages.look()
    weights = models.weights(settings, environment)
    yield from machine.check_machine(machine.look(), settings, weights, cpu=on_cpu())
    yield from packages.check_packages(installation, settings)
    yield models.check_cache(settings.cache_dir)
    yield from models.check_models(settings, environment)
    yield machine.check_port(settings)
    yield from machine.check_tracing(settings, "opentelemetry-sdk" in installation.versions, environment)


def _usable(settings: Settings) -> Finding:
    """What `grm serve` finds out before it starts an engine: templates, cards, calibration, limits."""
    try:
        from grm_server.app import create_app
    except ImportError:
        # `packages` says what is missing.
        return ok("settings", "every name and value is known")
    try:
        create_app(settings)
    except SettingsError as error:
        return fail("settings", str(error), "docs/settings.md")
    return ok("settings", "all can be used")
