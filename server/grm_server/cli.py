"""The `grm` command.

`serve` and `calibrate` need the server's packages, which are imported when they run; the other commands need the base
install. All but `serve` talk to a server over HTTP, like any other client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from grm_client import AsyncGRMClient, GRMClient, GRMClientError
from grm_client import demo as demo_page
from grm_client.jsonl import read_lines, resume_point
from grm_client.score_file import Progress as FileProgress
from grm_client.score_file import score_file

DEFAULT_URL = "http://127.0.0.1:8000"
DEMO_START_S = 300

app = typer.Typer(help=__doc__.splitlines()[0], no_args_is_help=True, pretty_exceptions_enable=False)
Url = Annotated[str, typer.Option(envvar="GRM_CLIENT_URL", help="The server to talk to.")]


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help="`bundled`, or any path or hub name that vLLM takes.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 lets the system choose.")] = None,
    template: Annotated[Path | None, typer.Option(help="A prompt template of your own (Jinja).")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting: --set engine.dtype=float32 (docs/settings.md)."),
    ] = None,
) -> None:
    """Start the server. Prints a request to try once it is ready."""
    try:
        import grm_server.serve as server
    except ImportError as error:
        _fail_without_extras(error)
    named = {"engine.model": model, "http.host": host, "http.port": port, "judge.template": template}
    overrides = [f"{name}={value}" for name, value in named.items() if value is not None]
    try:
        server.run(os.environ, [*overrides, *(settings or [])])
    except server.STARTUP_ERRORS as error:
        _fail(str(error))


@app.command()
def score(
    file: Annotated[str, typer.Argument(help="Requests as JSON Lines, one a line; - for standard input.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where answers go. Default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    resume: Annotated[bool, typer.Option(help="Skip the lines that --out already answers.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    k: Annotated[int | None, typer.Option(min=1, help="Samples for lines that do not say.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for lines that do not say.")] = None,
) -> None:
    """Score a file of requests against a running server.

    A row for each line, in the order of the lines. A bad line gets a row with its error and does not stop the rest.
    """
    if resume and out is None:
        _fail("--resume needs --out: the answers so far are read from it")
    if out is not None and file != "-" and out.exists() and out.samefile(file):
        _fail("--out is the file of requests itself; choose another")
    if file == "-" and sys.stdin.isatty():
        _fail("standard input is a terminal; pipe JSON Lines into it or name a file")
    if out is not None and out.exists() and not resume:
        _fail(f"{out} exists; go on with --resume, or choose another file")
    with _failures("go on with --resume" if out else ""), contextlib.ExitStack() as stack:
        skip = resume_point(out) if resume and out is not None else 0
        source: BinaryIO = sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
        sink: BinaryIO = sys.stdout.buffer if out is None else stack.enter_context(out.open("ab"))
        total = None if file == "-" else Path(file).stat().st_size
        defaults = {"k": k, "seed": seed}
        end = _score(url, read_lines(source), sink, concurrency, defaults, skip, total, lambda p: p.bytes_read)
    skipped = f", {skip} lines skipped" if skip else ""
    _say(f"{end.done} scored, {end.failed} failed{skipped}: {end.samples} samples, {end.completion_tokens} tokens")
    raise typer.Exit(1 if end.failed else 0)


@contextlib.contextmanager
def _failures(how_to_go_on: str) -> Iterator[None]:
    """What can end the scoring of a file, as messages."""
    try:
        yield
    except KeyboardInterrupt:
        _fail("; ".join(filter(None, ("interrupted", "the rows written are whole", how_to_go_on))), code=130)
    except (OSError, GRMClientError) as error:
        _fail(str(error))


def _score(
    url: str,
    source: Iterable[bytes],
    sink: BinaryIO,
    concurrency: int,
    defaults: Mapping[str, object],
    skip: int,
    total: int | None,
    done: Callable[[FileProgress], int],
) -> FileProgress:
    """`score_file` under a progress bar, which is full when `done` is `total`."""
    columns = (TextColumn("scoring"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=total, note="")

        def show(progress: FileProgress) -> None:
            note = f"{progress.done} scored, {progress.failed} failed, {progress.samples} samples"
            bar.update(task, completed=done(progress), note=note)

        async def run() -> FileProgress:
            async with AsyncGRMClient(url) as client:
                return await score_file(
                    client, source, sink, concurrency=concurrency, defaults=defaults, skip=skip, on_progress=show
                )

        return asyncio.run(run())


@app.command()
def calibrate(
    file: Annotated[
        Path, typer.Argument(help="Requests as JSON Lines, each with `label`: index of the best response.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the calibration goes.")] = Path("calibration.json"),
    answers: Annotated[
        Path | None, typer.Option(help="Where answers go; those there are kept. Default: FILE with .answers.jsonl.")
    ] = None,
    url: Url = DEFAULT_URL,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    k: Annotated[int | None, typer.Option(min=1, help="Samples for lines that do not say.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for lines that do not say.")] = None,
) -> None:
    """Learn from labelled requests what the judge's certainty is worth (docs/calibration.md).

    Scores the requests against a running server first. The same command goes on where it was stopped.
    """
    try:
        from grm_server.grm.calibration import MIN_LABELS
        from grm_server.serving import calibration, labels
    except ImportError as error:
        _fail_without_extras(error)
    answers = answers or file.with_suffix(".answers.jsonl")
    if len({path.resolve() for path in (file, answers, out)}) < 3:
        _fail("the requests, --answers and --out must be three files")
    with _failures("the same command goes on"):
        with file.open("rb") as source:
            lines, skipped = labels.read_labels(read_lines(source))
        usable = sum(line.label is not None for line in lines)
        if usable < MIN_LABELS:
            _fail(f"{usable} labelled requests are too few, {MIN_LABELS} are needed{_reasons(skipped)}")
        skip = resume_point(answers)
        with answers.open("ab") as sink:
            texts = (line.text for line in lines)
            _score(url, texts, sink, concurrency, {"k": k, "seed": seed}, skip, len(lines), lambda p: p.lines)
        try:
            with answers.open("rb") as rows:
                answered = labels.read_answers(rows, lines)
            skipped += answered.skipped
            report = calibration.calibrate(answered)
        except ValueError as error:
            _fail(f"{error}{_reasons(skipped)}. The answers are kept in {answers}; without it, all are scored again")
        out.write_text(report.calibration.model_dump_json(indent=2) + "\n", "utf-8")
    _say(f"{report.calibration.labels} labelled requests used{_reasons(skipped)}")
    typer.echo(calibration.as_text(report))
    _say(f"written to {out}; use it: grm serve --set stopping.calibration={out}")


def _reasons(skipped: Mapping[str, int]) -> str:
    return f" (not used: {', '.join(f'{count} {reason}' for reason, count in skipped.items())})" if skipped else ""


@app.command()
def demo(
    examples: Annotated[Path, typer.Argument(help="A folder of requests as .json files.")] = Path("examples"),
    url: Url = DEFAULT_URL,
) -> None:
    """Score the examples and print them. Starts a server for it if none runs."""
    files = sorted(examples.glob("*.json"))
    if not files:
        _fail(f"no .json files in {examples}")
    console = Console()
    with _server_for_demo(url), GRMClient(url) as client:
        for file in files:
            request = json.loads(file.read_text("utf-8"))
            with Console(stderr=True).status(f"scoring {file.name}"):
                try:
                    answer = client.rewards(**{"return_samples": True, **request})
                except GRMClientError as error:
                    _fail(f"{file}: {error}")
            console.rule(file.name)
            demo_page.render(console, request, answer)


@contextlib.contextmanager
def _server_for_demo(url: str) -> Iterator[None]:
    """A server at `url`: the one that is there, or one that ends with the demo."""
    with GRMClient(url, max_retries=0) as client:
        if client.ready():
            yield
            return
        if url != DEFAULT_URL:
            _fail(f"no server is ready at {url}")
        _say("no server is running; starting one for the demo")
        server = subprocess.Popen([sys.executable, "-m", "grm_server", "serve"])
        try:
            deadline = time.monotonic() + DEMO_START_S
            while not client.ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    _fail("the server did not start; see above")
                time.sleep(0.2)
            yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


@app.command()
def settings() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    from grm_server.settings import as_markdown

    typer.echo(as_markdown())


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the server."""
    from grm_server.app import create_app
    from grm_server.settings import Settings

    typer.echo(json.dumps(create_app(Settings()).openapi(), indent=2))


def _fail_without_extras(error: ImportError) -> NoReturn:
    _fail(f"{error}. The server needs its extra packages: pip install 'grm-server[cpu]' or 'grm-server[cuda]'")


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _fail(message: str, code: int = 2) -> NoReturn:
    typer.echo(f"grm: {message}", err=True)
    raise typer.Exit(code)
