"""`grm score` and `grm calibrate`, and what all commands that process a file share."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from grm_client import AsyncGRMClient, GRMClientError
from grm_client.data.jsonl import read_lines, resume_point
from grm_client.data.score_file import score_file
from grm_client.data.work_file import Progress
from grm_server.cli.terminal import DEFAULT_URL, Url, api_key, fail, fail_without_extras, reasons, say

Concurrency = Annotated[int, typer.Option(min=1, help="Requests in flight at once.")]
SampleCount = Annotated[int | None, typer.Option("-k", "--k", min=1, help="Samples for lines without `k`.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed for lines without `seed`.")]


def score(
    file: Annotated[str, typer.Argument(help="Requests as JSON Lines, one per line; - for standard input.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the answers. Default: standard output.")
    ] = None,
    url: Url = DEFAULT_URL,
    resume: Annotated[bool, typer.Option(help="Skip the lines that --out already answers.")] = False,
    concurrency: Concurrency = 16,
    k: SampleCount = None,
    seed: Seed = None,
) -> None:
    """Score a file of requests against a running server.

    Writes one row per line, in input order. A bad line gets a row with its error and does not stop the others.
    """
    if resume and out is None:
        fail("--resume needs --out, to read the answers so far")
    if out is not None and file != "-" and out.exists() and out.samefile(file):
        fail("--out is the file of requests itself; choose another")
    if file == "-" and sys.stdin.isatty():
        fail("standard input is a terminal; pipe JSON Lines into it or name a file")
    if out is not None and out.exists() and not resume:
        fail(f"{out} exists; continue with --resume, or choose another file")
    with failures("continue with --resume" if out else ""), contextlib.ExitStack() as stack:
        skip = resume_point(out) if resume and out is not None else 0
        source: BinaryIO = sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
        sink: BinaryIO = sys.stdout.buffer if out is None else stack.enter_context(out.open("ab"))
        total = None if file == "-" else Path(file).stat().st_size
        defaults = {"k": k, "seed": seed}
        end = _score(url, read_lines(source), sink, concurrency, defaults, skip, total, lambda p: p.bytes_read)
    skipped = f", {skip} lines skipped" if skip else ""
    say(f"{end.done} scored, {end.failed} failed{skipped}: {end.samples} samples, {end.completion_tokens} tokens")
    raise typer.Exit(1 if end.failed else 0)


@contextlib.contextmanager
def failures(how_to_resume: str) -> Iterator[None]:
    """Turn the errors that can end the work on a file into messages."""
    try:
        yield
    except KeyboardInterrupt:
        fail("; ".join(filter(None, ("interrupted", "all rows written are complete", how_to_resume))), code=130)
    except (OSError, GRMClientError) as error:
        fail(str(error))


def with_progress_bar(
    activity: str,
    url: str,
    run: Callable[[AsyncGRMClient, Callable[[Progress], None]], Awaitable[Progress]],
    total: int | None,
    completed: Callable[[Progress], int],
) -> Progress:
    """Process a file under a progress bar, which is full when `completed` reaches `total`.

    run: gets a client of the server at `url`, and the callback for progress.
    """
    columns = (TextColumn(activity), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(activity, total=total, note="")

        def show(progress: Progress) -> None:
            note = f"{progress.done} done, {progress.failed} failed, {progress.samples} samples"
            bar.update(task, completed=completed(progress), note=note)

        async def with_client() -> Progress:
            async with AsyncGRMClient(url, api_key=api_key()) as client:
                return await run(client, show)

        return asyncio.run(with_client())


def _score(
    url: str,
    source: Iterable[bytes],
    sink: BinaryIO,
    concurrency: int,
    defaults: Mapping[str, object],
    skip: int,
    total: int | None,
    completed: Callable[[Progress], int],
) -> Progress:
    def run(client: AsyncGRMClient, show: Callable[[Progress], None]) -> Awaitable[Progress]:
        return score_file(client, source, sink, concurrency=concurrency, defaults=defaults, skip=skip, on_progress=show)

    return with_progress_bar("scoring", url, run, total, completed)


def calibrate(
    file: Annotated[
        Path, typer.Argument(help="Requests as JSON Lines, each with `label`: index of the best response.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the calibration.")] = Path("calibration.json"),
    answers: Annotated[
        Path | None, typer.Option(help="File for the answers; kept if it exists. Default: FILE with .answers.jsonl.")
    ] = None,
    url: Url = DEFAULT_URL,
    concurrency: Concurrency = 16,
    k: SampleCount = None,
    seed: Seed = None,
) -> None:
    """Calibrate the judge's certainty on labelled requests (docs/calibration.md).

    Scores the requests against a running server first. Run the same command again to resume.
    """
    try:
        from grm_server.grm.calibration import MIN_LABELS
        from grm_server.judging.calibration import Calibration
        from grm_train import calibration, labels
    except ImportError as error:
        fail_without_extras(error)
    answers = answers or file.with_suffix(".answers.jsonl")
    if len({path.resolve() for path in (file, answers, out)}) < 3:
        fail("the requests, --answers and --out must be three different files")
    with failures("run the same command to resume"):
        with file.open("rb") as source:
            lines, skipped = labels.read_labels(read_lines(source))
        usable = sum(line.label is not None for line in lines)
        if usable < MIN_LABELS:
            fail(f"{usable} labelled requests are too few; {MIN_LABELS} are needed{reasons(skipped)}")
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
            fail(f"{error}{reasons(skipped)}. The answers are in {answers}; delete it to score all requests again")
        out.write_text(Calibration(**asdict(report.fit)).model_dump_json(indent=2) + "\n", "utf-8")
    say(f"{report.fit.labels} labelled requests used{reasons(skipped)}")
    typer.echo(calibration.as_text(report))
    say(f"written to {out}; use it: grm serve --set stopping.calibration={out}")
