"""`score_file`: order, bounded memory, rows and bad lines. How a run ends: test_score_file_ends.py."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_client.data.progress import Failure, Progress
from tests.unit.client.scoring import Answer, line, rows, score


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
    expected = answer(reward_error=[0.5]) | {"line": 1, "id": "mine", "request_id": "rw-9", "options": {}}
    (row,) = rows(out)
    assert len(row.pop("key")) == 32
    assert row == expected


@pytest.mark.parametrize("row_id", [None, 0, -1.5, True, "é\u2028", [1, {"a": None}], {"id": 1}])
async def test_an_id_of_any_type_is_echoed_and_not_sent(answer: Answer, row_id: object) -> None:
    sent: list[dict[str, Any]] = []

    async def serve(body: dict[str, Any]) -> httpx.Response:
        sent.append(body)
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    await score(serve, [line("q", id=row_id)], out, k=3)
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
    assert len(refused.pop("key")) == 32
    assert refused == {"line": 6, "id": "x", "options": {}, "error": error}
    assert "line 4" in rows(out)[2]["error"]["message"]
    final = reported[-1]
    assert (final.lines, final.done, final.failed, final.samples) == (12, 2, 8, 18)
    assert final.failures["too_many (responses)"] == Failure(1, 6, "m (too_many, HTTP 413)")
    assert sum(failure.count for failure in final.failures.values()) == 8
    assert final.bytes_read == sum(map(len, source))


async def test_other_columns_are_copied_to_meta_and_not_sent(answer: Answer) -> None:
    sent: list[dict[str, Any]] = []

    async def serve(body: dict[str, Any]) -> httpx.Response:
        sent.append(body)
        if body["query"] == "bad":
            return httpx.Response(422, json={"error": {"code": "invalid_body", "message": "m"}})
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    source = [line("q", source="web", label=1), line("bad", source={"any": [None]}, label=None), line("q")]
    final = (await score(serve, source, out))[-1]
    assert all(body.keys() == {"query", "responses"} for body in sent)
    assert [row.get("meta") for row in rows(out)] == [
        {"source": "web", "label": 1},
        {"source": {"any": [None]}, "label": None},
        None,
    ]
    assert final.columns == {"source"}


async def test_lines_that_fail_for_one_reason_are_one_failure() -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        raise AssertionError("no request expected")

    out = io.BytesIO()
    source = [json.dumps({"prompt": str(n), "chosen": "a", "rejected": "b"}).encode() + b"\n" for n in range(310)]
    final = (await score(serve, source, out))[-1]
    ((reason, failure),) = final.failures.items()
    assert "rename `prompt` to `query` and put `chosen` and `rejected` into a list" in reason
    assert failure == Failure(310, 1, f"line 1 is {reason}")
