"""How a server ends: inside one app, and as processes that get signals."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_server.api.service import Service
from grm_server.engine.fake import FakeSampler
from tests.integration.balancer import Balancer
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR
from tests.integration.processes import GRM
from tests.integration.trainers import slime

STREAM = {"Accept": "text/event-stream"}


def service_of(client: httpx.AsyncClient) -> Service:
    service: Service = client._transport.app.state.service  # type: ignore[attr-defined]
    return service


async def under_way(service: Service, count: int) -> None:
    async with asyncio.timeout(10):
        while service.drain.in_flight < count:
            await asyncio.sleep(0.01)


async def test_no_new_work_and_the_truth_about_it(serve: Serve) -> None:
    async with serve(FakeSampler()) as client:
        assert (await client.get("/health/ready")).status_code == 200
        service_of(client).drain.begin()
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert "shutting down" in ready.json()["reason"]
        refused = await client.post("/v1/rewards", json=PAIR)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.json()["error"]["retryable"]
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        for path in ("/health/live", "/metrics", "/v1/models"):
            assert (await client.get(path)).status_code == 200


async def test_what_is_under_way_is_finished_and_its_connection_closed(serve: Serve) -> None:
    async with serve(FakeSampler(delay_s=0.3)) as client:
        service = service_of(client)
        call = asyncio.ensure_future(client.post("/v1/rewards", json=PAIR))
        await under_way(service, 1)
        service.drain.begin()
        answer = await call
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        async with asyncio.timeout(1):
            await service.drain.idle()


async def test_what_is_not_done_in_time_is_handed_back(serve: Serve) -> None:
    sampler = FakeSampler(delay_s=60)
    async with serve(sampler, "grouping.idle_s=30") as client:
        service = service_of(client)
        plain, stream, single, rerank = (
            asyncio.ensure_future(client.post(path, json=body, headers=headers))
            for path, body, headers in (
                ("/v1/rewards", PAIR, {}),
                ("/v1/rewards", PAIR, STREAM),
                ("/get_reward", {"query": ["A"], "prompts": ["Q"]}, {}),
                ("/rerank", {"query": "Q", "documents": ["A"]}, {}),
            )
        )
        await under_way(service, 4)
        async with asyncio.timeout(10):
            while sampler.running < 16 + 16 + 16:
                await asyncio.sleep(0.01)
        service.drain.begin()
        service.grouping.drain()
        service.drain.expire()
        for call in (plain, single, rerank):
            answer = await call
            # A trainer gets no neutral reward for this: it asks again.
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert answer.headers["connection"] == "close"
        answer = await stream
        assert answer.status_code == 200
        name, data = answer.text.strip().split("\n\n")[-1].split("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "shutting_down"
        await service.drain.idle()
        # The group of the single response is judged on for its retry, until the server is closed.
        async with asyncio.timeout(10):
            while sampler.running > 16:
                await asyncio.sleep(0.01)
    assert sampler.running == 0


async def test_groups_are_not_waited_for(serve: Serve) -> None:
    async with serve(FakeSampler(), "grouping.idle_s=30", "judge.k=2") as client:
        service = service_of(client)
        calls = [asyncio.ensure_future(client.post("/reward?n=8", json=slime("Q", f"A{i}"))) for i in range(3)]
        await under_way(service, 3)
        await asyncio.sleep(0.2)
        service.drain.begin()
        service.grouping.drain()
        async with asyncio.timeout(10):
            assert [(await call).status_code for call in calls] == [200, 200, 200]
        text = (await client.get("/metrics")).text
    assert 'grm_group_size_count{reason="drain"} 1.0' in text


async def test_a_response_that_was_on_its_way_in_is_not_kept_waiting_either(serve: Serve) -> None:
    async with serve(FakeSampler(), "grouping.idle_s=30", "judge.k=2") as client:
        service = service_of(client)
        sent = asyncio.Event()

        async def body() -> Any:
            yield b" "
            await sent.wait()
            yield json.dumps(slime("Q", "A")).encode()

        call = asyncio.ensure_future(
            client.post("/reward?n=8", content=body(), headers={"Content-Type": "application/json"})
        )
        await under_way(service, 1)
        service.drain.begin()
        service.grouping.drain()
        sent.set()
        async with asyncio.timeout(10):
            assert (await call).status_code == 200


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Process:
    """A server in a process of its own, whose samples take `delay_s`."""

    def __init__(self, cache: Path, delay_s: float, *settings: str, port: int = 0) -> None:
        fake = ("engine.kind=fake", f"engine.fake_sample_s={delay_s}", f"cache_dir={cache}", "stopping.rule=fixed")
        command = [*GRM, "serve", "--port", str(port)]
        for setting in (*fake, *settings):
            command += ["--set", setting]
        self._log = cache / f"log-{time.monotonic_ns()}"
        with self._log.open("w") as log:
            self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def ready(self) -> str:
        """Its address."""
        assert self.popen.stdout is not None
        found = next((m for line in self.popen.stdout if (m := re.search(r"ready on (http://\S+)", line))), None)
        assert found, self._log.read_text()
        return found[1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def ended(self, within_s: float) -> tuple[int, str]:
        """How, and its log."""
        return self.popen.wait(within_s), self._log.read_text()


@contextmanager
def process(cache: Path, delay_s: float, *settings: str, port: int = 0) -> Iterator[Process]:
    one = Process(cache, delay_s, *settings, port=port)
    try:
        yield one
    finally:
        one.popen.kill()
        one.popen.communicate()


async def waiting(client: httpx.AsyncClient, url: str, count: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(StopIteration):
                text = (await client.get(f"{url}/metrics")).text
                line = next(line for line in text.splitlines() if line.startswith("grm_requests_in_flight"))
                if float(line.split()[1]) >= count:
                    return
            await asyncio.sleep(0.05)


async def test_sigterm_turns_readiness_red_before_connections_are_refused(tmp_path: Path) -> None:
    with process(tmp_path, 1.5, "http.drain_grace_s=4") as server:
        url = server.ready()
        async with httpx.AsyncClient(timeout=30) as client:
            call = asyncio.ensure_future(client.post(f"{url}/v1/rewards", json=PAIR | {"k": 2}))
            await waiting(client, url, 1)
            server.end()
            await asyncio.sleep(0.5)
            # New connections, as a balancer's checks are.
            async with httpx.AsyncClient(timeout=30) as other:
                assert (await other.get(f"{url}/health/ready")).status_code == 503
                assert (await other.get(f"{url}/health/live")).status_code == 200
                assert (await other.post(f"{url}/v1/rewards", json=PAIR)).status_code == 503
            assert (await call).status_code == 200
        code, log = server.ended(30)
    assert code == 0
    assert "draining: 1 requests in flight, at most 25 s" in log
    assert "Traceback" not in log


async def test_after_drain_s_the_rest_gets_503_and_no_cut_connection(tmp_path: Path) -> None:
    with process(tmp_path, 60, "http.drain_grace_s=0", "http.drain_s=1") as server:
        url = server.ready()
        async with httpx.AsyncClient(timeout=30) as client:
            plain = asyncio.ensure_future(client.post(f"{url}/v1/rewards", json=PAIR | {"k": 2}))
            stream = asyncio.ensure_future(client.post(f"{url}/v1/rewards", json=PAIR | {"k": 2}, headers=STREAM))
            await waiting(client, url, 2)
            server.end()
            answer = await plain
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert '"code":"shutting_down"' in (await stream).text
        code, log = server.ended(30)
    assert code == 0
    assert "2 requests are not done; they get 503" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]]
)
async def test_ctrl_c_and_a_second_signal_wait_for_nobody(tmp_path: Path, signals: list[signal.Signals]) -> None:
    with process(tmp_path, 60, "http.drain_s=600", "http.drain_grace_s=600") as server:
        url = server.ready()
        async with httpx.AsyncClient(timeout=30) as client:
            call = asyncio.ensure_future(client.post(f"{url}/v1/rewards", json=PAIR))
            await waiting(client, url, 1)
            for number in signals[:-1]:
                server.end(number)
                await asyncio.sleep(1)
                assert not call.done()
            server.end(signals[-1])
            answer = await call
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert server.ended(20)[0] == 0


FORKS = """
import os, signal, sys, threading, time
from grm_server.serve import run

def fork():
    # As an engine's core does, and as it is stopped.
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        time.sleep(60)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    print("stopped", flush=True)

threading.Timer(float(sys.argv[1]), fork).start()
run(os.environ, sys.argv[2:])
"""


def test_a_core_that_is_stopped_does_not_stop_the_server(tmp_path: Path) -> None:
    settings = ("http.port=0", "engine.kind=fake", f"cache_dir={tmp_path}", "http.drain_grace_s=60")
    with subprocess.Popen([sys.executable, "-c", FORKS, "5", *settings], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = next(m[1] for line in server.stdout if (m := re.search(r"ready on (http://\S+)", line)))
            assert any(line == "stopped\n" for line in server.stdout)
            time.sleep(0.5)
            assert httpx.get(f"{url}/health/ready").status_code == 200
        finally:
            server.kill()


@pytest.mark.parametrize("grace_s", [0, 1])
async def test_a_rolling_restart_fails_no_request(tmp_path: Path, grace_s: float) -> None:
    """Two servers, one after the other replaced under load: plain requests, streams, and groups of single ones."""
    ports = [free_port(), free_port()]
    settings = (f"http.drain_grace_s={grace_s}", "grouping.idle_s=0.2")
    answers: list[httpx.Response] = []
    over = asyncio.Event()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(process(tmp_path, 0.2, *settings, port=port)) for port in ports]
        for server in servers:
            server.ready()
        balancer = Balancer(*(f"http://127.0.0.1:{port}" for port in ports))
        async with httpx.AsyncClient(transport=balancer, base_url="http://localhost", timeout=60) as client:

            async def caller(number: int) -> None:
                asked = 0
                while not over.is_set():
                    asked += 1
                    path, body = (
                        ("/v1/rewards", PAIR | {"k": 4})
                        if number % 2
                        else ("/reward?n=2&k=4", slime(f"Q{number // 4} {asked}", f"A{number}"))
                    )
                    answers.append(await client.post(path, json=body))

            async def restart() -> None:
                for at, port in enumerate(ports):
                    await asyncio.sleep(1)
                    servers[at].end()
                    code, log = await asyncio.to_thread(servers[at].ended, 40)
                    assert code == 0, log
                    assert "Traceback" not in log
                    servers[at] = stack.enter_context(process(tmp_path, 0.2, *settings, port=port))
                    await asyncio.to_thread(servers[at].ready)
                await asyncio.sleep(1)
                over.set()

            async with asyncio.TaskGroup() as group:
                for number in range(12):
                    group.create_task(caller(number))
                group.create_task(restart())
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) > 100
    assert balancer.passed_over > 0, "nothing was asked of a server that ended; the test shows nothing"
