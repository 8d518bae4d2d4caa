"""The APIs of Cohere, Jina, vLLM and RewardAnything."""

from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from grm_server.grm.script import plain
from tests.integration.conftest import Serve
from tests.integration.judging import favours
from tests.integration.trainers import post

BODY = {"model": "rerank-v3.5", "query": "Why?", "documents": ["Bad.", "Good.", {"text": "Worse."}]}


@pytest.mark.parametrize(("path", "shown"), [("/rerank", True), ("/v1/rerank", True), ("/v2/rerank", False)])
async def test_rerank(serve: Serve, path: str, shown: bool) -> None:
    async with serve(FakeEngine(score=favours("Good")), "judge.k=2") as client:
        answer = await post(client, BODY, path)
    assert {"id", "model", "results", "usage", "meta"} == set(answer)
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert [result["index"] for result in answer["results"]] == [1, 0, 2]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx([8 / 9, 2 / 9, 2 / 9])
    assert [result.get("document") for result in answer["results"]] == (
        [{"text": text} for text in ("Good.", "Bad.", "Worse.")] if shown else [None] * 3
    )
    assert answer["usage"]["total_tokens"] > answer["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(("top_n", "count"), [(0, 3), (1, 1), (2, 2), (9, 3), (None, 3)])
async def test_the_best_documents(serve: Serve, top_n: int | None, count: int) -> None:
    async with serve(FakeEngine(score=favours("Good")), "judge.k=2") as client:
        answer = await post(client, BODY | {"top_n": top_n, "return_documents": True}, "/v2/rerank?reward_scale=raw")
    assert len(answer["results"]) == count
    assert answer["results"][0] == {"index": 1, "relevance_score": 9.0, "document": {"text": "Good."}}


@pytest.mark.parametrize("change", [{"documents": []}, {"documents": [3]}, {"query": None}, {"top_n": -1}])
async def test_invalid_rerank_requests(serve: Serve, change: dict[str, Any]) -> None:
    async with serve(FakeEngine()) as client:
        assert (await client.post("/v2/rerank", json=BODY | change)).status_code == 422


async def test_more_documents_than_the_limit(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v2/rerank", json=BODY | {"documents": ["A."] * 65})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "limit_exceeded")


async def test_the_same_documents_get_the_same_scores(serve: Serve) -> None:
    async with serve(FakeEngine(), "judge.k=4") as client:
        one, two = await post(client, BODY, "/v2/rerank"), await post(client, BODY, "/v2/rerank")
    assert one["results"] == two["results"]


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "Why?", "text_2": ["Bad.", "Good."]},
        {"queries": "Why?", "documents": ["Bad.", "Good."]},
        {"data_1": ["Why?"], "items": ["Bad.", "Good."]},
    ],
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_one_query_and_many_documents(serve: Serve, path: str, body: Any) -> None:
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "judge.k=2") as client:
        answer = await post(client, body, path)
    assert {"id", "object", "created", "model", "data", "usage"} == set(answer)
    assert [(item["index"], item["object"]) for item in answer["data"]] == [(0, "score"), (1, "score")]
    assert [item["score"] for item in answer["data"]] == pytest.approx([2 / 9, 8 / 9])
    assert "Response 2" in engine.calls[0][0].prompt


async def test_pairs_of_query_and_document(serve: Serve) -> None:
    body = {"text_1": ["Q", "R", "Q"], "text_2": ["Bad.", "Good.", "Good."]}
    async with serve(FakeEngine(score=favours("Good")), "judge.k=2") as client:
        answer = await post(client, body, "/score?reward_scale=raw")
        wrong = await client.post("/score", json={"text_1": ["Q", "R"], "text_2": ["A", "B", "C"]})
        none = await client.post("/score", json={"text_1": "Q", "text_2": []})
    assert [item["score"] for item in answer["data"]] == [3.0, 9.0, 9.0]
    assert (wrong.status_code, none.status_code) == (400, 400)


NAMED = {
    "principle": "Be right.",
    "prompt": "Why?",
    "responses": {"model-a": "Bad.", "model-b": "Good."},
    "mask_responses": True,
}


async def test_reward_anything(serve: Serve) -> None:
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "judge.k=2") as client:
        answer = await post(client, NAMED, "/api/rewardanything")
    assert answer["results"] == {"scores": {"model-a": 3.0, "model-b": 9.0}, "best-to-worst": ["model-b", "model-a"]}
    assert "Reading " in answer["thoughts"]
    assert "is model-b" in answer["thoughts"]
    prompt = engine.calls[0][0]
    assert "model-b" not in prompt.prompt
    assert "Be right." in plain(prompt.segments[0].lead)


async def test_reward_anything_in_request_order(serve: Serve) -> None:
    other = NAMED | {"responses": {"x": "Good.", "y": "Bad.", "z": "Bad."}}
    async with serve(FakeEngine(score=favours("Good")), "judge.k=2") as client:
        answers = await post(client, [NAMED, other], "/api/rewardanything_batch")
        nothing = await post(client, [], "/api/rewardanything_batch")
        wrong = await client.post("/api/rewardanything_batch", json=[NAMED, NAMED | {"responses": {}}])
    assert [answer["results"]["best-to-worst"] for answer in answers] == [["model-b", "model-a"], ["x", "y", "z"]]
    assert nothing == []
    assert wrong.status_code == 422
