"""A request releases its room in the engine however it ends, over HTTP with a fake engine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.errors import EngineDead
from grm_server.meta_rm.fake import FakeMetaRM
from tests.integration.load import ONE, RAW_KEY, loaded
from tests.integration.trainers import Caller


class TestThePermitIsReleased:
    """Capacity is one sample, so any leak would block the next request."""

    async def check(self, tmp_path: Path, engine: FakeEngine, status: int, code: str, **changes: Any) -> None:
        async with loaded(tmp_path, engine, "admission.max_running_samples=1") as server:
            for _ in range(3):
                answer = await server.ask(**changes)
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
                await server.until_empty()

    async def test_after_a_deadline(self, tmp_path: Path) -> None:
        await self.check(tmp_path, FakeEngine(delay_s=60), 504, "deadline_exceeded", deadline_s=0.05)

    async def test_after_too_few_votes(self, tmp_path: Path) -> None:
        await self.check(tmp_path, FakeEngine(["no"] * 12), 502, "too_few_votes", k=4)

    async def test_after_a_prompt_that_is_too_long(self, tmp_path: Path) -> None:
        await self.check(tmp_path, FakeEngine(max_model_len=300), 400, "prompt_too_long", responses=["w " * 600, "B."])

    async def test_after_the_engines_death(self, tmp_path: Path) -> None:
        def dies(_: FakeCall) -> str:
            raise EngineDead("died")

        await self.check(tmp_path, FakeEngine(score=dies), 503, "engine_dead", k=4)

    async def test_after_an_unexpected_error(self, tmp_path: Path) -> None:
        def broken(_: FakeCall) -> str:
            raise RuntimeError("broken")

        await self.check(tmp_path, FakeEngine(score=broken), 500, "internal_error", k=4)

    @pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
    async def test_after_a_disconnect(self, tmp_path: Path, accept: str) -> None:
        engine = FakeEngine(delay_s=60)
        async with loaded(tmp_path, engine, "admission.max_running_samples=1") as server:
            for _ in range(3):
                caller = Caller(
                    server.app, ONE | {"k": 4}, "/v1/rewards", b"", [(b"accept", accept.encode()), *RAW_KEY]
                )
                async with asyncio.timeout(5):
                    while not engine.running:
                        await asyncio.sleep(0.002)
                await caller.hang_up()
                await server.until_empty()

    async def test_after_an_early_stop_and_its_audit(self, tmp_path: Path) -> None:
        engine = FakeEngine(["9, 2}", "2, 9}"] * 40, delay_s=0.02)
        overrides = ("admission.max_running_samples=1", "stopping.audit_share=1")
        async with loaded(tmp_path, engine, *overrides) as server:
            for _ in range(3):
                answer = await server.ask(k=16, seed=5, stop={"rule": "decided"})
                assert answer.status_code == 200
            await server.until_empty()

    async def test_after_a_meta_rms_failure(self, tmp_path: Path) -> None:
        meta_rm = FakeMetaRM()
        await meta_rm.close()
        async with loaded(tmp_path, FakeEngine(), "admission.max_running_samples=1", meta_rm=meta_rm) as server:
            for _ in range(2):
                assert (await server.ask(aggregate="meta_hinge", k=4)).status_code == 503
                await server.until_empty()
