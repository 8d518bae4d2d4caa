"""`score_file`: order, bounded memory, bad lines, and the file that is left when the server stops."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from grm_client import AsyncGRMClient
from grm_client.data.jsonl import resume_point
from grm_client.data.score_file import score_file
from grm_client.data.work_file import Progress
from grm_client.errors import Stopped

Answer = Callable[..., dict[str, Any]]
Handler = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


def line(query: str, **fields: Any) -> bytes:
    return json.dumps({"query": query, "responses": ["a", "b", "c"]} | fields).encode() + b"\n"


def rows(out: io.BytesIO) -> list[dict[str, Any]]:
    assert out.getvalue() == b"" or out.getvalue().endswith(b"\n")
    return [json.loads(row) for row in out.getvalue().splitlines()]


async def score(
    handler: Handler, source: Iterable[bytes], out: BinaryIO, *, concurrency: int = 4, skip: int = 0, **defaults: Any
) -> list[Progress]:
    """All reported progress. The last one equals the result of `score_file`."""

    async def serve(request: httpx.Request) -> httpx.Response:
        return await handler(json.loads(request.content))

    reported: list[Progress] = []
    async with AsyncGRMClient(transport=httpx.MockTransport(serve)) as client:
        final = await score_file(
            client, source, out, concurrency=concurrency, defaults=defaults, skip=skip, on_progress=reported.append
        )
    assert not reported or reported[-1] == final
    return reported


async def test_rows_keep_the_order_of_lines_whatever_finishes_first(answer: Answer) -> None:
    running = peak = 0
    finished: list[int] = []
    ended = [asyncio.Event() for _ in range(62)]

    async def last_first(body: dict[str, Any]) -> httpx.Response:
        """In each block of five lines, a line waits for the one after it."""
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        number = int(body["query"])
        if number % 5:
            await ended[number + 1].wait()
        running -= 1
        finished.append(number)
        ended[number].set()
        return httpx.Response(200, json=answer(id=body["query"]))

    out = io.BytesIO()
    source = [line(str(n), id=n) for n in range(1, 61)]
    progress = (await score(last_first, source, out, concurrency=5))[-1]
    assert finished[:5] == [5, 4, 3, 2, 1]
    assert peak == 5
    assert [row["line"] for row in rows(out)] == list(range(1, 61))
    assert all(row["id"] == row["line"] and row["request_id"] == str(row["line"]) for row in rows(out))
    size = sum(map(len, source))
    # The server drew 9 of at most 16 samples for each line.
    assert progress == Progress(lines=60, bytes_read=size, done=60, samples=540, completion_tokens=14400)


async def test_a_row_has_the_whole_answer_with_unknown_fields(answer: Answer) -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=answer(id="rw-9", reward_error=[0.5]))

    out = io.BytesIO()
    await score(serve, [line("q", id="mine")], out)
    expected = answer(reward_error=[0.5]) | {"line": 1, "id": "mine", "request_id": "rw-9"}
    assert rows(out) == [expected]


@pytest.mark.parametrize("row_id", [None, 0, -1.5, True, "é\u2028", [1, {"a": None}], {"id": 1}])
async def test_an_id_of_any_type_is_echoed_and_not_sent(answer: Answer, row_id: object) -> None:
    sent: list[dict[str, Any]] = []

    async def serve(body: dict[str, Any]) -> httpx.Response:
        sent.append(body)
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    await score(serve, [line("q", id=row_id)], out, k=3, seed=None)
    assert rows(out)[0]["id"] == row_id
    assert sent == [{"query": "q", "responses": ["a", "b", "c"], "k": 3}]


async def test_one_slow_line_holds_back_reading(answer: Answer) -> None:
    release = asyncio.Event()
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield line(str(n))

    async def first_is_slow(body: dict[str, Any]) -> httpx.Response:
        if body["query"] == "0":
            await release.wait()
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    async with asyncio.TaskGroup() as group:
        group.create_task(score(first_is_slow, endless(), out, concurrency=2))
        await asyncio.sleep(0.3)
        assert taken == 8
        assert out.getvalue() == b""
        release.set()
    assert [row["line"] for row in rows(out)] == list(range(1, 1001))


async def test_a_row_is_written_while_the_source_is_silent(answer: Answer, tmp_path: Path) -> None:
    """A pipe that gives its second line only after the first row is visible to other processes."""
    path = tmp_path / "out.jsonl"

    async def serve(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(0.01)
        return httpx.Response(200, json=answer())

    def pipe() -> Iterator[bytes]:
        yield line("first")
        for _ in range(200):
            if path.read_bytes():
                break
            time.sleep(0.01)
        else:
            raise TimeoutError("the first row was not written")
        yield line("second")

    with path.open("wb") as out:
        await score(serve, pipe(), out, concurrency=3)
    assert len(path.read_bytes().splitlines()) == 2


async def test_bad_lines_and_refusals_get_error_rows_and_the_run_continues(answer: Answer) -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        if body["query"] == "refused":
            error = {"code": "too_many", "message": "m", "param": "responses", "retryable": False, "details": {"n": 3}}
            return httpx.Response(413, json={"error": error})
        if body["query"] == "busy":
            return httpx.Response(429, text="busy")
        if body["query"] == "slow":
            raise httpx.ReadTimeout("")
        if body["query"] == "late":
            return httpx.Response(504, json={"error": {"code": "deadline_exceeded", "message": "m", "retryable": True}})
        if body["query"] == "garbled":
            return httpx.Response(200, text="{}")
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    source = [
        b"{not json\n",
        line("fine"),
        b"\n",
        b'{"query": "\xff"}\n',
        b"[1]\n",
        line("refused", id="x"),
        b"  \r\n",
        line("busy"),
        line("slow"),
        line("garbled"),
        line("late"),
        line("fine").rstrip(),
    ]
    reported = await score(serve, source, out)
    codes = {row["line"]: row["error"]["code"] if "error" in row else "ok" for row in rows(out)}
    assert codes == {
        1: "bad_line",
        2: "ok",
        4: "bad_line",
        5: "bad_line",
        6: "too_many",
        8: "http_error",
        9: "timed_out",
        10: "bad_answer",
        11: "deadline_exceeded",
        12: "ok",
    }
    refused = next(row for row in rows(out) if row["line"] == 6)
    error = {"code": "too_many", "message": "m", "param": "responses", "retryable": False, "details": {"n": 3}}
    assert refused == {"line": 6, "id": "x", "error": error}
    assert "line 4" in rows(out)[2]["error"]["message"]
    final = reported[-1]
    assert (final.lines, final.done, final.failed, final.samples) == (12, 2, 8, 18)
    assert final.bytes_read == sum(map(len, source))


@pytest.mark.parametrize("status", [None, 401, 403, 503])
async def test_an_error_that_concerns_every_line_stops_the_run_and_a_second_run_resumes(
    answer: Answer, tmp_path: Path, status: int | None
) -> None:
    source = [line("1"), b"\n", *(line(str(n)) for n in range(3, 41)), b"\n"]
    fails = True

    async def serve(body: dict[str, Any]) -> httpx.Response:
        n = int(body["query"])
        if fails and n >= 20:
            if status is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(status)
        await asyncio.sleep(0.001 * (n % 3))
        return httpx.Response(200, json=answer())

    path = tmp_path / "out.jsonl"
    out = io.BytesIO()
    with pytest.raises(Stopped, match=r"--resume") as caught:
        await score(serve, source, out)
    written = [row["line"] for row in rows(out)]
    assert written == [1, *range(3, 20)][: len(written)]
    assert len(written) >= 12
    assert f"line {written[-1]}:" in str(caught.value)

    path.write_bytes(out.getvalue() + b'{"line": 2')
    skip = resume_point(path)
    assert skip == written[-1]
    fails = False
    rest = io.BytesIO()
    final = (await score(serve, source, rest, skip=skip))[-1]
    assert [row["line"] for row in rows(out) + rows(rest)] == [1, *range(3, 41)]
    assert (final.lines, final.bytes_read) == (41, sum(map(len, source)))
    assert final.done == 39 - len(written)

    path.write_bytes(out.getvalue() + rest.getvalue())
    nothing = io.BytesIO()
    await score(serve, source, nothing, skip=resume_point(path))
    assert nothing.getvalue() == b""


async def test_a_cancelled_run_leaves_complete_rows(answer: Answer) -> None:
    out = io.BytesIO()
    stuck = asyncio.Event()

    async def serve(body: dict[str, Any]) -> httpx.Response:
        if body["query"] == "30":
            await asyncio.Event().wait()
        if body["query"] == "45":
            # The window of 4 workers is 16 lines. Line 30 blocks, so rows 31 to 45 wait and 29 rows are written.
            stuck.set()
        return httpx.Response(200, json=answer())

    run = asyncio.create_task(score(serve, [line(str(n)) for n in range(1, 100)], out))
    await stuck.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [row["line"] for row in rows(out)] == list(range(1, 30))


async def test_a_full_disk_raises_oserror(answer: Answer) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    async def serve(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=answer())

    with pytest.raises(OSError, match="No space left"):
        await score(serve, [line("q")] * 9, Full())


async def test_an_empty_source_sends_nothing() -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        raise AssertionError("no request expected")

    out = io.BytesIO()
    assert await score(serve, [], out) == []
    assert out.getvalue() == b""


async def test_concurrency_0_is_refused() -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        raise AssertionError("no request expected")

    with pytest.raises(ValueError, match="concurrency"):
        await score(serve, [line("q")], io.BytesIO(), concurrency=0)
