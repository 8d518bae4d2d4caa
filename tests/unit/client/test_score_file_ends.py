"""`score_file`: how a run ends, and the file that it leaves."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx
import pytest

from grm_client.data.resume import Mixture
from grm_client.errors import Stopped
from tests.unit.client.scoring import Answer, line, rows, score


@pytest.mark.parametrize("status", [None, 401, 403, 503])
async def test_an_error_that_concerns_every_line_stops_the_run(answer: Answer, status: int | None) -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        n = int(body["query"])
        if n >= 20:
            if status is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(status)
        await asyncio.sleep(0.001 * (n % 3))
        return httpx.Response(200, json=answer())

    out = io.BytesIO()
    with pytest.raises(Stopped, match=r"--resume") as caught:
        await score(serve, [line("1"), b"\n", *(line(str(n)) for n in range(3, 41)), b"\n"], out)
    written = [row["line"] for row in rows(out)]
    assert written == [1, *range(3, 20)][: len(written)]
    assert len(written) >= 12
    assert f"line {written[-1]}:" in str(caught.value)


async def test_a_judge_that_changes_during_a_run_ends_it(answer: Answer) -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=answer(model="judge" if int(body["query"]) < 5 else "another"))

    out = io.BytesIO()
    with pytest.raises(Mixture, match="answers of the judge judge, and the server now runs another"):
        await score(serve, [line(str(n)) for n in range(9)], out, concurrency=1)
    assert [row["model"] for row in rows(out)] == ["judge"] * 5


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
