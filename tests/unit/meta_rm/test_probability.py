"""A meta RM's logits to a probability, and the three server APIs that return them."""

import json
import math
from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest

from grm_server.errors import MetaRMFailed, PromptTooLong
from grm_server.meta_rm.probability import as_probability, check_length
from grm_server.meta_rm.remote import RemoteMetaRM
from grm_server.settings import MetaRMSettings


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_one_logit_or_the_difference_of_two() -> None:
    assert as_probability([0.7], (1.0, 0.0)) == pytest.approx(sigmoid(0.7))
    assert as_probability([0.2, 0.9], (1.0, 0.0)) == pytest.approx(sigmoid(0.7))
    assert as_probability([0.7], (2.0, -1.0)) == pytest.approx(sigmoid(0.4))


def test_no_logit_overflows() -> None:
    assert as_probability([1e6], (1.0, 0.0)) == 1.0
    assert as_probability([-1e6], (1.0, 0.0)) == 0.0


@pytest.mark.parametrize("logits", [[], [0.1, 0.2, 0.3], [math.nan], [math.inf]])
def test_invalid_logits_are_a_failure(logits: list[float]) -> None:
    with pytest.raises(MetaRMFailed):
        as_probability(logits, (1.0, 0.0))


def test_input_that_is_too_long_is_refused_not_truncated() -> None:
    assert check_length([1, 2], None) == check_length([1, 2], 2) == (1, 2)
    with pytest.raises(PromptTooLong, match="meta RM"):
        check_length([1, 2, 3], 2)


class Chat:
    """A fake encoder: one token, the number of words."""

    def prompt(self, text: str) -> list[int]:
        return [len(text.split())]

    def assistant_turn(self, text: str) -> list[int]:
        return [len(text.split()), 0]


def remote(answer: Callable[[httpx.Request], httpx.Response], url: str, api: Any = "vllm") -> RemoteMetaRM:
    settings = MetaRMSettings(kind="remote", model="org/meta", url=url, api=api)
    meta_rm = RemoteMetaRM(settings, url, "shown", cast(Any, Chat()), (1.0, 0.0))
    meta_rm._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return meta_rm


@pytest.mark.parametrize(
    ("path", "api", "sent", "answer"),
    [
        ("classify", "vllm", {"input": [2, 3, 0], "use_activation": False}, {"data": [{"probs": [0.7]}]}),
        (
            "pooling",
            "vllm",
            {"input": [2, 3, 0], "use_activation": False, "task": "classify"},
            {"data": [{"data": [0.7]}]},
        ),
        ("classify", "sglang", {"input_ids": [2, 3, 0]}, {"embedding": [0.7]}),
        ("classify", "sglang", {"input_ids": [2, 3, 0]}, [{"embedding": [0.7]}]),
    ],
)
async def test_request_and_answer_format_of_each_api(path: str, api: str, sent: Any, answer: Any) -> None:
    seen: list[Any] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=answer)

    meta_rm = remote(serve, f"http://meta/{path}", api)
    rating = await meta_rm.rate(meta_rm.prepare("two words"), "and three more")
    await meta_rm.close()
    assert seen == [{"model": "org/meta"} | sent]
    assert rating.meta_reward == pytest.approx(sigmoid(0.7))
    assert rating.prompt_tokens == 3


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, text="no"),
        httpx.Response(200, text="not json"),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"data": []}),
        httpx.Response(200, json={"data": [{"probs": ["x"]}]}),
        httpx.Response(200, json={"data": [{"probs": [0.1, 0.2, 0.3]}]}),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
    ],
)
async def test_every_other_answer_is_a_failure(answer: httpx.Response | Exception) -> None:
    def serve(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    meta_rm = remote(serve, "http://meta/classify")
    with pytest.raises(MetaRMFailed, match="meta RM"):
        await meta_rm.rate((1,), "answer")
    await meta_rm.close()
