"""The client against the server. Neither imports the other."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from grm_client import APIError, AsyncGRMClient, GRMClient, RewardOptions, Rewards, Sample, types
from grm_server.api import schemas


def test_the_client_and_the_server_have_the_same_fields() -> None:
    for one, other in (
        (types.Rewards, schemas.RewardsResponse),
        (types.Sample, schemas.SampleOut),
        (types.Usage, schemas.Usage),
        (types.Timing, schemas.Timing),
    ):
        assert one.model_fields.keys() == other.model_fields.keys()
    assert RewardOptions.__annotations__.keys() | {"query", "responses"} == schemas.RewardsRequest.model_fields.keys()


def test_the_server_accepts_every_option(url: str) -> None:
    options: RewardOptions = {
        "k": 4,
        "stop": {"rule": "decided", "gamma": 0.1, "target": "ranking"},
        "deadline_s": 20.0,
        "aggregate": "winsorised",
        "reading": "sampled",
        "list_size": 2,
        "task": "math",
        "temperature": 0.7,
        "seed": 3,
        "max_critique_tokens": 64,
        "reference": "r",
        "principles": "p",
        "min_votes": 1,
        "return_samples": True,
        "hint": 1,
        "k_meta": None,
        "meta_rm_failure": "vote",
        "principles_from": "query",
        "priority": "low",
    }
    assert options.keys() == RewardOptions.__annotations__.keys()
    with GRMClient(url) as client:
        answer = client.rewards("q", ["a", "b", "c"], **options)
    assert (answer.k, answer.seed, answer.list_size) == (4, 3, 2)
    assert answer.samples is not None
    assert len(answer.samples) == answer.usage.samples
    assert any(score is None for score in answer.samples[0].scores or ())


def test_a_stream(url: str) -> None:
    with GRMClient(url) as client:
        plain = client.rewards("q", ["a", "b"], k=8, seed=1, return_samples=True)
        for _ in range(2):
            events = list(client.stream("q", ["a", "b"], k=8, seed=1, return_samples=True))
            names = [event.name for event in events]
            assert (names[0], names[-1]) == ("started", "rewards")
            assert names.count("sample") >= plain.usage.samples
            assert "wave" in names
            assert Rewards(**events[-1].data).ranking == plain.ranking
            assert all(Sample(**event.data).scores for event in events if event.name == "sample")


def test_leaving_a_stream_and_missing_its_deadline(url: str) -> None:
    with GRMClient(url) as client:
        for event in client.stream("q", ["a"], k=4):
            assert event.name == "started"
            break
        with pytest.raises(APIError) as caught:
            list(client.stream("q", ["a"], deadline_s=1e-6))
        assert caught.value.code == "deadline_exceeded"
        with pytest.raises(APIError) as caught:
            list(client.stream("q", ["a"], min_votes=10_000))
        assert (caught.value.status, caught.value.param) == (422, "min_votes")


async def test_a_stream_of_the_asynchronous_client(url: str) -> None:
    async with AsyncGRMClient(url) as client, aclosing(client.stream("q", ["a", "b"], k=4)) as events:
        assert [event.name async for event in events][-1] == "rewards"
