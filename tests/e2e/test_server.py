"""The real server with the real engine, as a client sees it."""

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import QUERY, RESPONSES, SHORT, rewards
from tests.e2e.conftest import Server
from tests.hostile import HOSTILE

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_sample_is_scored(server: Server, n: int) -> None:
    answer = rewards(server, responses=RESPONSES[:n], k=8, max_critique_tokens=48, return_samples=True)
    assert (answer["k"], answer["k_valid"], answer["failures"]) == (8, 8, {})
    assert len(answer["rewards"]) == len(answer["vote_sums"]) == n
    for i, (reward, total) in enumerate(zip(answer["rewards"], answer["vote_sums"], strict=True)):
        scores = [sample["scores"][i] for sample in answer["samples"]]
        assert all(1 <= score <= 10 for score in scores)
        assert sum(scores) == total
        # A single response is rewarded by its expected score.
        assert n == 1 or total == reward * 8
    for sample in answer["samples"]:
        assert sorted(sample["order"]) == list(range(n))
        assert sample["principles"] is not None
        assert sample["critique"] is not None
        assert sample["failure"] is None
    assert any(sample["principles"] and sample["critique"] for sample in answer["samples"])
    usage = answer["usage"]
    assert usage["completion_tokens"] == sum(sample["completion_tokens"] for sample in answer["samples"])
    assert 0 < usage["cached_tokens"] < usage["prompt_tokens"]
    timing = answer["timing"]
    assert 0 < timing["generate_s"] <= timing["total_s"]
    assert timing["queue_s"] + timing["generate_s"] <= timing["total_s"] + 0.1


def test_a_critique_that_is_cut_is_scored_and_marked(server: Server) -> None:
    answer = rewards(server, k=4, return_samples=True)
    cut = [sample for sample in answer["samples"] if sample["finish_reason"] == "length"]
    assert cut
    assert all(sample["scores"] for sample in cut)


def test_same_seed_same_draws_and_other_seed_other_draws(server: Server) -> None:
    one, two = (rewards(server, responses=RESPONSES[:3], k=4, return_samples=True) for _ in range(2))
    other = rewards(server, responses=RESPONSES[:3], k=4, seed=2, return_samples=True)
    assert [s["order"] for s in one["samples"]] == [s["order"] for s in two["samples"]]
    assert [s["critique"] for s in one["samples"]] == [s["critique"] for s in two["samples"]]
    assert one["vote_sums"] == two["vote_sums"]
    assert [s["critique"] for s in one["samples"]] != [s["critique"] for s in other["samples"]]
    assert len({s["principles"] + s["critique"] for s in one["samples"]}) > 1


def test_reference_principles_and_turns(server: Server) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": QUERY},
    ]
    answer = rewards(
        server, query=turns, reference="Rayleigh scattering.", principles="Truth (weight 1).", return_samples=True
    )
    assert answer["k_valid"] == 2
    assert all(sample["principles"] is None for sample in answer["samples"])


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 5))
def test_hostile_responses_are_scored_like_any_other(server: Server, start: int) -> None:
    responses = ["An honest answer.", *HOSTILE[start : start + 5]]
    answer = rewards(server, responses=responses, k=2, return_samples=True)
    assert (answer["k_valid"], answer["failures"]) == (2, {})
    assert all(len(sample["scores"]) == len(responses) for sample in answer["samples"])


def test_a_prompt_that_is_too_long_generates_nothing(server: Server) -> None:
    before = server.client.get("/metrics").text
    response = server.client.post("/v1/rewards", json=SHORT | {"responses": ["word " * 9000, "short"]})
    after = server.client.get("/metrics").text
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "prompt_too_long")
    assert error["details"]["limit"] == 8192
    assert error["details"]["prompt_tokens"] > 9000
    count = re.compile(r"^vllm:(?:prompt|generation)_tokens_total\{.*$", re.M)
    assert count.findall(before) == count.findall(after) != []


def test_a_prompt_near_the_limit_is_not_chunked_and_does_not_end_the_engine(server: Server) -> None:
    """Chunked prefill of a seeded prompt kills vLLM's CPU engine, so the server never chunks a prompt."""
    answers: list[dict[str, Any]] = []
    long = ["word " * 2500, "other " * 1500]
    threads = [
        threading.Thread(target=lambda s=seed: answers.append(rewards(server, responses=long, k=2, seed=s)))
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["k_valid"] for answer in answers] == [2, 2]


def test_models_health_and_metrics(server: Server) -> None:
    assert server.client.get("/health/ready").json()["status"] == "ready"
    card = server.client.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"]) == ("SmolLM2-135M-Instruct", 8192)
    text = server.client.get("/metrics").text
    assert 'grm_samples_total{outcome="valid"}' in text
    assert "vllm:generation_tokens_total" in text


def test_the_server_keeps_idle_connections_longer_than_clients_do(server: Server) -> None:
    """A server that closes first may do so while a request arrives. httpx drops idle connections after 5 s."""
    with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=10)) as connection:
        for pause_s in (6, 0):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read()
            time.sleep(pause_s)


def test_grm_score_against_the_real_server(server: Server, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        '{"id": 7, "query": "2+2?", "responses": ["4", "5"], "k": 2, "max_critique_tokens": 16}\nnonsense\n'
    )
    command = [str(Path(sys.executable).with_name("grm")), "score", str(source), "-o", str(out), "--url", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "1 scored, 1 failed" in done.stderr
    first, second = out.read_text().splitlines()
    assert '"id": 7' in first or '"id":7' in first
    assert "bad_line" in second


def test_grm_collect_keeps_expected_scores(server: Server, tmp_path: Path) -> None:
    file, out = tmp_path / "labelled.jsonl", tmp_path / "trajectories.jsonl"
    body = {"query": QUERY, "responses": RESPONSES[:3], "label": 0, "max_critique_tokens": 16, "seed": 1}
    file.write_text(json.dumps(body) + "\n")
    command = [sys.executable, "-m", "grm_server", "collect", str(file), "--out", str(out), "-n", "2"]
    subprocess.run([*command, "--url", server.url], check=True, capture_output=True)
    [row] = [json.loads(line) for line in out.read_text().splitlines()]
    for sample in row["samples"]:
        assert all(score in range(1, 11) for score in sample["scores"]), "labels compare the scores that were written"
        # The tokens of the other scores may be ambiguous: "1" can be the beginning of "10".
        assert 1 <= sample["expected_scores"][sample["order"][-1]] <= 10
