"""Waves, deadlines, blocks and streams on the real engine."""

import json
import re
import time
from typing import Any

import httpx
import pytest

from tests.e2e.asking import RESPONSES, SHORT, rewards, running, within
from tests.e2e.conftest import Server

pytestmark = pytest.mark.engine


def lines(server: Server, **changes: Any) -> Any:
    headers = {"Accept": "text/event-stream"}
    return server.client.stream("POST", "/v1/rewards", json=SHORT | changes, headers=headers)


def until_idle(server: Server) -> None:
    within(30, lambda: running(server) == 0)


def test_the_default_decides_in_waves(server: Server) -> None:
    answer = rewards(server, k=16, stop={"rule": "decided", "gamma": 0.2}, return_samples=True)
    assert answer["stop_reason"] in ("decided", "full_k")
    assert answer["k_used"] in (4, 8, 16)
    assert len(answer["samples"]) == answer["k_used"]
    assert sum(answer["p_best"]) == pytest.approx(1)
    assert answer["risk_full_k"] <= 0.2
    until_idle(server)


@pytest.mark.parametrize("n", [48, 64])
def test_a_group_is_judged_in_blocks(server: Server, n: int) -> None:
    responses = [f"The sky is blue because of reason number {i}. " + RESPONSES[i % 5] for i in range(n)]
    answer = rewards(server, responses=responses, k=2, stop={"rule": "fixed"})
    assert answer["list_size"] == 8
    assert answer["votes"] == [2] * n
    assert answer["usage"]["samples"] == 2 * n // 8
    assert len(answer["rewards"]) == len(answer["se"]) == n


def test_a_list_that_does_not_fit_the_context_is_judged_in_blocks(server: Server) -> None:
    answer = rewards(server, responses=[f"{i} " + "word " * 1800 for i in range(5)], k=1)
    assert 2 <= answer["list_size"] < 5
    assert answer["votes"] == [1] * 5


def test_a_deadline_cuts_a_later_wave(server: Server) -> None:
    long: dict[str, Any] = {"k": 64, "max_critique_tokens": 64, "stop": {"rule": "precision", "se": 1e-6}}
    # How long a wave takes on this machine.
    started = time.monotonic()
    with lines(server, **long) as response:
        for line in response.iter_lines():
            if line == "event: wave":
                break
    wave_s = time.monotonic() - started
    until_idle(server)
    # Three, so that a machine that stands still for a while still finishes the first one.
    answer = rewards(server, **long, deadline_s=3 * wave_s, return_samples=True)
    assert answer["stop_reason"] == "deadline"
    assert 4 <= answer["k_used"] < 64
    assert answer["k_used"] == len(answer["samples"])
    # All 64 samples would take about eleven waves.
    assert answer["timing"]["total_s"] < 6 * wave_s
    until_idle(server)
    response = server.client.post("/v1/rewards", json=SHORT | long | {"deadline_s": 0.05})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    until_idle(server)


def test_a_stream_reports_samples_and_waves_and_ends_with_the_answer(server: Server) -> None:
    with lines(server, k=8, stop={"rule": "precision", "se": 1e-6}) as response:
        text = "".join(response.iter_text())
    events = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.M)
    names = [name for name, _ in events]
    assert names[0] == "started"
    assert names.count("sample") == 8
    assert names.count("wave") == 2
    answer = json.loads(events[-1][1])
    assert names[-1] == "rewards"
    assert answer["k_used"] == 8
    plain = rewards(server, k=8, seed=answer["seed"], stop={"rule": "precision", "se": 1e-6})
    assert plain["vote_sums"] == answer["vote_sums"]


def test_a_stream_that_is_dropped_frees_the_engine(server: Server) -> None:
    with lines(server, k=32, max_critique_tokens=1024) as response:
        # Kept alive: httpx closes the connection when the iterator is collected.
        held = response.iter_lines()
        assert next(held) == "event: started"
        with httpx.Client(base_url=server.url) as other:
            deadline = time.monotonic() + 30
            while not re.search(r"^vllm:num_requests_running\{.*\} [1-9]", other.get("/metrics").text, re.M):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    until_idle(server)


def test_a_single_response_is_rewarded_by_its_expected_scores(server: Server) -> None:
    answer = rewards(server, responses=RESPONSES[:1], k=4, return_samples=True)
    expected = [sample["expected_scores"][0] for sample in answer["samples"]]
    assert all(value is not None and 1 <= value <= 10 for value in expected)
    assert answer["rewards"][0] == pytest.approx(sum(expected) / 4)
    assert any(value != sample["scores"][0] for value, sample in zip(expected, answer["samples"], strict=True))
