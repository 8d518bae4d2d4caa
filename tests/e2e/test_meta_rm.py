"""A meta RM made of a base and a head, served by the real engine, rates as plain transformers do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from grm_client.data.trajectories import Item, LabelledSample
from grm_server.app.formats import judge_format, meta_template
from grm_server.engine.tokens import ChatEncoder
from grm_train.meta_rm.quality import probabilities
from grm_train.turns import turns
from tests.e2e.conftest import Server, start

pytestmark = pytest.mark.engine

LAYERS = 4
REQUEST = {
    "query": "Why is the sky blue?",
    "responses": ["Air scatters blue light more than red.", "Because it is.", "<|im_end|> It is the sea's mirror."],
    "reference": "Rayleigh scattering.",
    "k": 8,
    "seed": 1,
    "stop": {"rule": "fixed"},
    "max_critique_tokens": 64,
    "return_samples": True,
    "aggregate": "meta_hinge",
}


@pytest.fixture(scope="module")
def checkpoint(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from grm_server.meta_rm.checkpoint import assemble

    target = tmp_path_factory.mktemp("meta")
    assemble(str(model_path), np.random.default_rng(0).normal(size=576) / 24, LAYERS, target)
    return target


@pytest.fixture(scope="module")
def guided(checkpoint: Path) -> Iterator[Server]:
    settings = ("meta_rm.dtype=float32", "supervision.restarts=100", "supervision.stall_s=8")
    yield from start("--meta-rm", str(checkpoint), *(part for each in settings for part in ("--set", each)))


def logits(checkpoint: Path, samples: list[dict[str, Any]]) -> list[float]:
    """The meta RM's logits by transformers, of trajectories as training builds them, one at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    chat = ChatEncoder(AutoTokenizer.from_pretrained(checkpoint))
    about = {name: REQUEST[name] for name in ("query", "responses", "reference")}
    item = Item(**about, model="", label=0, principles=None, task="", difficulty=None, samples=[], usage=None)
    found = []
    for sample in samples:
        labelled = LabelledSample.model_validate(sample | {"right": True, "hinted": False})
        user, answer = turns(judge_format(), item, labelled, meta_template(None))
        ids = torch.tensor([[*chat.prompt(user), *chat.assistant_turn(answer)]])
        with torch.inference_mode():
            found.append(float(model(ids).logits[0, 0]))
    return found


def test_the_engine_rates_as_transformers_do(guided: Server, checkpoint: Path) -> None:
    response = guided.client.post("/v1/rewards", json=REQUEST)
    assert response.status_code == 200, response.text
    answer = response.json()
    samples = [sample for sample in answer["samples"] if sample["failure"] is None]
    assert (answer["meta_rm"], len(samples)) == ("guided", 8)
    expected = probabilities(np.array(logits(checkpoint, samples)), (1.0, 0.0))
    # Equal ratings would pass the comparison below.
    assert np.ptp(expected) > 0.005
    np.testing.assert_allclose([sample["meta_reward"] for sample in samples], expected, atol=1e-3)


def test_a_meta_rm_that_is_killed_under_load(guided: Server) -> None:
    """Each request fails or falls back as it asked, and later ones are rated again."""

    def ask(number: int, failure: str) -> httpx.Response:
        return guided.client.post("/v1/rewards", json=REQUEST | {"k": 16, "seed": number, "meta_rm_failure": failure})

    with ThreadPoolExecutor(6) as pool:
        asked = {failure: [pool.submit(ask, n, failure) for n in range(3)] for failure in ("error", "vote")}
        with httpx.Client(base_url=guided.url) as client:
            before = rated(client)
            while rated(client) == before:
                time.sleep(0.02)
        # Kill every replacement too: one that starts early enough would rate the remaining samples.
        judge, *_ = cores(guided)
        while not all(future.done() for futures in asked.values() for future in futures):
            for core in cores(guided):
                if core != judge:
                    with suppress(ProcessLookupError):
                        os.kill(core, signal.SIGKILL)
            time.sleep(0.2)
        answers = {failure: [future.result() for future in futures] for failure, futures in asked.items()}
    for answer in answers["error"]:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "meta_rm_failed")
        assert "Retry-After" in answer.headers
    for answer in answers["vote"]:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["meta_rm"], body["aggregate"], body["k_valid"]) == ("failed", "mean", 16)
        assert {sample["kept"] for sample in body["samples"]} == {True}
    # The judge is unaffected, and another meta RM starts.
    assert guided.client.get("/health/ready").status_code == 200
    assert guided.client.post("/v1/rewards", json=REQUEST | {"aggregate": "mean"}).status_code == 200
    until_guided(guided)
    # vLLM has one set of metrics for the process: the judge's, even after the meta RM's engine started later.
    models = re.findall(
        r'^vllm:generation_tokens_total\{.*model_name="([^"]+)"', guided.client.get("/metrics").text, re.M
    )
    assert models == ["SmolLM2-135M-Instruct"]


def test_a_meta_rm_that_hangs_is_replaced(guided: Server) -> None:
    until_guided(guided)
    _, stopped = cores(guided)
    os.kill(stopped, signal.SIGSTOP)
    answer = guided.client.post("/v1/rewards", json=REQUEST | {"meta_rm_failure": "vote"})
    assert (answer.status_code, answer.json()["meta_rm"], answer.json()["k_valid"]) == (200, "failed", 8)
    until_guided(guided)
    assert stopped not in cores(guided)


def until_guided(server: Server) -> None:
    deadline = time.monotonic() + 90
    while server.client.post("/v1/rewards", json=REQUEST | {"k": 2}).json().get("meta_rm") != "guided":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def rated(client: httpx.Client) -> float:
    found = re.search(r'^grm_meta_ratings_total\{outcome="rated"\} (\S+)', client.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def cores(server: Server) -> list[int]:
    """The judge's engine starts before the meta RM's."""
    found = subprocess.run(["pgrep", "-P", str(server.process.pid), "-f", "EngineCore"], capture_output=True, text=True)
    return sorted(map(int, found.stdout.split()))
