"""Priors are learned per API key: the traffic of one key does not move what another key's requests stop at."""

import json
from pathlib import Path

import numpy as np
import pytest

from grm_server.grm.evidence import gather
from grm_server.grm.priors import DEFAULT_WEIGHT
from grm_server.grm.stopping import Decided, decide
from grm_server.grm.types import Contenders, Floats, Prior, StopReason
from grm_server.judging.priors_store import MAX_TASKS, PriorKey, PriorStore

GAMMA, K = 0.05, 16
HOSTILE = np.array([[10.0, 1.0]] * 4)
"""A first wave without noise and with the largest gap: it teaches that four samples decide anything."""
OF_A = PriorKey("fake", "", "mean", "trainer-a")
OF_B = PriorKey("fake", "", "mean", "trainer-b")
BOTH = Contenders((0, 1))


def requests(count: int, seed: int) -> list[Floats]:
    """(16, 2) each: scores of two responses of similar quality by a noisy judge, as from a policy in training."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0, 0.3, (count, 1)) + rng.normal(0, 3, (count, K))
    return list(5.5 + np.stack([gaps, -gaps], axis=2) / 2)


def stops(prior: Prior, traffic: list[Floats]) -> tuple[int, int]:
    """How many requests `decided` stops early, and how many of these all k samples decide otherwise."""
    early = wrong = 0
    for scores in traffic:
        for drawn in range(4, K, 4):
            evidence = gather(scores[:drawn], [(0, 1)] * drawn, prior)
            rule = Decided(GAMMA)
            decision = decide(rule, evidence, scores[:drawn], drawn, K, BOTH, ballot_range=9.0, droppable=False)
            if decision.stop is StopReason.DECIDED:
                early += 1
                wrong += int(scores[:drawn].mean(axis=0).argmax() != scores.mean(axis=0).argmax())
                break
    return early, wrong


def test_a_hostile_key_does_not_move_the_risk_of_another(tmp_path: Path) -> None:
    store = PriorStore(tmp_path / "priors.json")
    for scores in requests(250, seed=1):
        store.observe(OF_B, scores[:4])
    learnt_by_b, traffic = store.prior(OF_B), requests(1000, seed=2)
    for _ in range(6000):
        store.observe(OF_A, HOSTILE)
    early, wrong = stops(store.prior(OF_B), traffic)
    assert store.prior(OF_B) == learnt_by_b
    assert early > 200
    assert wrong <= GAMMA * early
    # With one prior for all keys, B's requests would stop by what A taught.
    early, wrong = stops(store.prior(OF_A), traffic)
    assert wrong > 2 * GAMMA * early


def test_tags_of_one_key_do_not_remove_those_of_another(tmp_path: Path) -> None:
    path = tmp_path / "priors.json"
    store = PriorStore(path)
    learnt_by_b = OF_B._replace(task="maths")
    store.observe(learnt_by_b, HOSTILE)
    expected = store.prior(learnt_by_b)
    for number in range(MAX_TASKS + 4):
        store.observe(OF_A._replace(task=f"tag-{number}"), np.zeros((4, 2)))
    assert store.prior(learnt_by_b) == expected != store.prior(OF_B)
    store.save()
    rows = json.loads(path.read_text())["priors"]
    assert len(rows) == MAX_TASKS
    assert PriorStore(path).prior(learnt_by_b) == expected
    assert [row["task"] for row in rows if row["tenant"] == "trainer-b"] == ["maths"]


@pytest.mark.parametrize("key", [OF_A, OF_B, PriorKey("fake", "new", "mean", "anonymous")])
def test_an_older_file_is_where_every_key_starts(tmp_path: Path, key: PriorKey) -> None:
    path = tmp_path / "priors.json"
    variances = {"pair_variance": 9.0, "gap_variance": 2.0, "score_variance": 7.0}
    old = {"model": "fake", "task": "", "aggregate": "mean", "weight": 700.0, **variances}
    path.write_text(json.dumps({"priors": [old]}))
    store = PriorStore(path)
    for _ in range(300):
        store.observe(OF_A._replace(task="hostile"), HOSTILE)
    assert store.prior(key) == Prior(**variances)
    store.observe(key, np.zeros((4, 2)))
    store.save()
    rows = json.loads(path.read_text())["priors"]
    assert old | {"tenant": "", "winners": False} in rows
    assert [row["weight"] for row in rows if row["tenant"] == key.tenant and row["task"] == key.task] == [
        DEFAULT_WEIGHT + 1
    ]
