"""The official clients of OpenAI and Cohere."""

from __future__ import annotations

import cohere
import openai
import pytest

from tests.trainers.conftest import Direct

CHAT = [{"role": "user", "content": "p"}]


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    options = {"k": 4, "stop": "fixed", "seed": 7}
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", default_query=options, max_retries=0)


def test_a_reward_as_a_chat_completion(client: openai.OpenAI, direct: Direct) -> None:
    messages = [*CHAT, {"role": "assistant", "content": "a"}]
    answer = client.chat.completions.create(model="grm", messages=messages, temperature=0.0)
    (reward,) = direct(CHAT, "a")
    assert answer.choices[0].message.content is not None
    name, _, value = answer.choices[0].message.content.partition(":")
    assert (name, float(value)) == ("reward", pytest.approx(reward, abs=1e-4))
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content is not None
    token = answer.choices[0].logprobs.content[0]
    assert (token.token, token.logprob) == ("reward", pytest.approx(reward, abs=1e-4))


def test_models_can_be_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]


def test_an_invalid_request_raises_the_clients_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="assistant"):
        client.chat.completions.create(model="grm", messages=CHAT)


def test_cohere_reranks(url: str, direct: Direct) -> None:
    documents = ["a", "bb", "ccc", "dddd"]
    rewards = direct(CHAT, *documents)
    client = cohere.ClientV2(api_key="none", base_url=url)
    # Cohere's client takes no query string in its URL.
    answer = client.rerank(model="grm", query="p", documents=documents, top_n=3, request_options={
        "additional_query_parameters": {"k": 4, "stop": "fixed", "seed": 7}
    })  # fmt: skip
    best = sorted(range(4), key=lambda i: -rewards[i])[:3]
    assert [result.index for result in answer.results] == best
    assert [result.relevance_score for result in answer.results] == pytest.approx([(rewards[i] - 1) / 9 for i in best])
