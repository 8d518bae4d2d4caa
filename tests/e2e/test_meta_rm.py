"""A meta RM made of a base and a head, served by the real engine: it says what plain transformers say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grm_client.trajectories import Item, LabelledSample
from grm_server.engine.chat import ChatEncoder
from grm_server.serving.templates import meta_template
from grm_server.training.quality import probabilities
from grm_server.training.turns import turns
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
    from grm_server.engine.meta_checkpoint import assemble

    target = tmp_path_factory.mktemp("meta")
    assemble(str(model_path), np.random.default_rng(0).normal(size=576) / 24, LAYERS, target)
    return target


@pytest.fixture(scope="module")
def guided(checkpoint: Path) -> Iterator[Server]:
    yield from start("--meta-rm", str(checkpoint), "--set", "meta_rm.dtype=float32")


def logits(checkpoint: Path, samples: list[dict[str, Any]]) -> list[float]:
    """Of the trajectories as the trainer makes them, one at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    chat = ChatEncoder(AutoTokenizer.from_pretrained(checkpoint))
    about = {name: REQUEST[name] for name in ("query", "responses", "reference")}
    item = Item(**about, model="", label=0, principles=None, task="", difficulty=None, samples=[], usage=None)
    found = []
    for sample in samples:
        labelled = LabelledSample.model_validate(sample | {"right": True, "hinted": False})
        user, answer = turns(meta_template(None), item, labelled)
        ids = torch.tensor([[*chat.prompt(user), *chat.answered(answer)]])
        with torch.inference_mode():
            found.append(float(model(ids).logits[0, 0]))
    return found


def test_the_engine_says_what_transformers_say(guided: Server, checkpoint: Path) -> None:
    response = guided.client.post("/v1/rewards", json=REQUEST)
    assert response.status_code == 200, response.text
    answer = response.json()
    samples = [sample for sample in answer["samples"] if sample["failure"] is None]
    assert (answer["meta_rm"], len(samples)) == ("guided", 8)
    expected = probabilities(np.array(logits(checkpoint, samples)), (1.0, 0.0))
    # Else all of them being alike would pass.
    assert np.ptp(expected) > 0.005
    np.testing.assert_allclose([sample["meta_reward"] for sample in samples], expected, atol=1e-3)
