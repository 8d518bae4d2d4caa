"""Options of a run over a file: fields of a request for all lines that do not set them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from grm_server.cli.terminal import fail

_HELP = "for lines without"

SampleCount = Annotated[int | None, typer.Option("-k", "--k", min=1, help=f"Samples {_HELP} `k`.")]
Seed = Annotated[int | None, typer.Option(min=0, help=f"Seed {_HELP} `seed`.")]
StopRule = Annotated[
    str | None,
    typer.Option(
        "--stop",
        help=f"Stop rule {_HELP} `stop`: fixed, decided, strict or precision, or as JSON: "
        """'{"rule": "decided", "gamma": 0.1}'.""",
    ),
]
CritiqueTokens = Annotated[
    int | None, typer.Option("--max-critique-tokens", min=16, help=f"Tokens of a critique {_HELP} this field.")
]
Temperature = Annotated[float | None, typer.Option(help=f"Sampling temperature {_HELP} `temperature`.")]
Aggregate = Annotated[str | None, typer.Option(help=f"How samples are combined, {_HELP} `aggregate`.")]
Task = Annotated[str | None, typer.Option(help=f"Tag of similar requests, {_HELP} `task`.")]

JudgeFormatFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--judge-format", help="Format file of the judge, if its format is no preset (grm formats). Repeatable."
    ),
]


def request_fields(
    *,
    k: int | None = None,
    seed: int | None = None,
    stop: str | None = None,
    max_critique_tokens: int | None = None,
    temperature: float | None = None,
    aggregate: str | None = None,
    task: str | None = None,
) -> dict[str, object]:
    """The options that are set, as fields of a request. The server checks their values."""
    fields = {
        "k": k,
        "seed": seed,
        "stop": None if stop is None else _stop(stop),
        "max_critique_tokens": max_critique_tokens,
        "temperature": temperature,
        "aggregate": aggregate,
        "task": task,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _stop(text: str) -> dict[str, object]:
    if not text.startswith("{"):
        return {"rule": text}
    try:
        return dict(json.loads(text))
    except ValueError as error:
        fail(f"--stop is not JSON: {error}")
