"""The real engine is killed, stopped and abandoned: what clients see, and what the engine still computes."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.asking import SHORT, running, within
from tests.e2e.conftest import Server

pytestmark = pytest.mark.engine

LONG = SHORT | {"k": 16, "max_critique_tokens": 1024}
MAX_WASTED_TOKENS = 10 * 3 * 16
"""What three such requests may still decode after their clients left: ten tokens a sample. Samples have hundreds."""


def core(server: Server) -> int:
    """The process id of the engine's core."""
    found = subprocess.run(["pgrep", "-P", str(server.process.pid), "-f", "EngineCore"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


def ready(server: Server) -> bool:
    return server.client.get("/health/ready").status_code == 200


@contextmanager
def asked(server: Server, *bodies: dict[str, Any], timeout: float = 300) -> Iterator[list[httpx.Response | Exception]]:
    """Send all bodies at once, each from a thread of its own. The answers are complete at the end of the block."""
    answers: list[httpx.Response | Exception] = []

    def ask(body: dict[str, Any]) -> None:
        try:
            answers.append(httpx.post(f"{server.url}/v1/rewards", json=body, timeout=timeout))
        except httpx.HTTPError as error:
            answers.append(error)

    callers = [threading.Thread(target=ask, args=(body,)) for body in bodies]
    for caller in callers:
        caller.start()
    yield answers
    for caller in callers:
        caller.join()


def scored(answer: httpx.Response | Exception) -> dict[str, Any]:
    assert isinstance(answer, httpx.Response), answer
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["k_valid"] == body["k_used"] == body["k"]
    assert len(body["rewards"]) == 2
    assert all(1 <= reward <= 10 for reward in body["rewards"])
    return body


def test_a_killed_engine_is_rebuilt_and_no_request_notices(server_to_kill: Server) -> None:
    server = server_to_kill
    body = SHORT | {"k": 8, "max_critique_tokens": 200}
    undisturbed = scored(server.client.post("/v1/rewards", json=body))
    for _ in range(2):
        killed = core(server)
        with asked(server, *[body | {"seed": seed} for seed in (1, 2, 3)]) as answers:
            within(60, lambda: running(server) > 0)
            os.kill(killed, signal.SIGKILL)
            within(5, lambda: not ready(server))
            reason = server.client.get("/health/ready").json()["reason"]
            assert server.client.get("/health/live").status_code == 200
            # A request without an engine waits for the next one.
            late = server.client.post("/v1/rewards", json=SHORT)
            assert ready(server)
        assert "killed by signal 9" in reason
        assert core(server) != killed
        scored(late)
        again = [scored(answer) for answer in answers]
        assert len(again) == 3
        [same] = [answer for answer in again if answer["seed"] == 1]
        assert same["usage"]["prompt_tokens"] == undisturbed["usage"]["prompt_tokens"]
        assert running(server) == 0
    text = server.client.get("/metrics").text
    assert 'grm_engine_restarts_total{engine="engine",outcome="restarted"} 2.0' in text
    assert "vllm:generation_tokens_total" in text


def test_a_hung_engine_is_killed_and_rebuilt(server_to_kill: Server) -> None:
    server = server_to_kill
    stopped = core(server)
    with asked(server, SHORT | {"k": 8, "max_critique_tokens": 400}) as answers:
        within(60, lambda: running(server) > 0)
        os.kill(stopped, signal.SIGSTOP)
        within(60, lambda: not ready(server))
        assert "no step in 8 s" in server.client.get("/health/ready").json()["reason"]
        within(90, lambda: ready(server))
    scored(answers[0])
    assert not Path(f"/proc/{stopped}").exists()
    assert core(server) != stopped


def test_a_rebuilt_engine_holds_no_connection_of_the_server(server_to_kill: Server) -> None:
    """The engine is forked from the server. An inherited connection would stay open after the server closed it."""

    def sockets(pid: int) -> set[str]:
        links = []
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                links.append(os.readlink(entry))
            except FileNotFoundError:
                continue
        return {link for link in links if link.startswith("socket:")}

    server = server_to_kill
    with httpx.Client(base_url=server.url) as kept:
        kept.get("/health/live")
        killed = core(server)
        os.kill(killed, signal.SIGKILL)
        within(5, lambda: not ready(server))
        within(90, lambda: ready(server))
        tcp = {f"socket:[{line.split()[9]}]" for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
        held = sockets(server.process.pid) & tcp
        assert len(held) >= 2, "the listener and a client"
        assert not held & sockets(core(server))


def test_an_engine_ends_with_its_server(server_to_kill: Server) -> None:
    """The last test of this server: after SIGKILL it cannot be used again."""
    engine = Path(f"/proc/{core(server_to_kill)}")
    server_to_kill.process.kill()
    within(10, lambda: not engine.exists() or "\nState:\tZ" in (engine / "status").read_text())


def decoded(server: Server) -> float:
    """Tokens that the engine has generated so far, by its own metrics."""
    text = server.client.get("/metrics").text
    return sum(float(value) for value in re.findall(r"^vllm:generation_tokens_total\{.*\} (\S+)$", text, re.M))


def nothing_is_decoded(server: Server, after: str) -> None:
    """Soon after the last client left. Counted in tokens rather than seconds, because a busy machine may stall."""
    before = decoded(server)
    gone_s = within(10, lambda: running(server) == 0)
    wasted = decoded(server) - before
    print(f"{after}: {wasted:.0f} tokens and {gone_s * 1e3:.0f} ms until nothing ran")  # noqa: T201
    assert before > 0
    assert wasted < MAX_WASTED_TOKENS
    time.sleep(0.5)
    assert decoded(server) == before + wasted
    assert "grm_requests_in_flight 0.0" in server.client.get("/metrics").text


def test_a_disconnect_stops_decoding(server: Server) -> None:
    callers = [HTTPConnection(server.url.removeprefix("http://"), timeout=60) for _ in range(3)]
    for seed, caller in enumerate(callers):
        caller.request("POST", "/v1/rewards", json.dumps(LONG | {"seed": seed}), {"Content-Type": "application/json"})
    within(60, lambda: running(server) >= 16)
    for caller in callers:
        caller.close()
    nothing_is_decoded(server, "disconnect")


def test_a_deadline_stops_decoding(server: Server) -> None:
    with asked(server, *[LONG | {"seed": seed, "deadline_s": 5.0} for seed in range(3)]) as answers:
        within(60, lambda: running(server) > 0)
    assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} <= {200, 504}
    assert len(answers) == 3
    nothing_is_decoded(server, "deadline")
