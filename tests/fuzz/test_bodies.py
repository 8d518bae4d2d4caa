"""Any JSON value at any place of a body, and any bytes as a body, get an answer or a 4xx error, never a 5xx."""

import asyncio
import copy
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grm_client.transport import strict_json
from grm_server.api.schemas import ErrorResponse
from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.meta_rm.fake import FakeMetaRM
from grm_server.settings import load_settings
from tests.fuzz.campaign import QUICK

SAID = [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
OUTPUT = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A."}]}]
REWARDS = {"query": [{"role": "user", "content": "Why?"}], "responses": ["A.", "B."], "k": 2, "seed": 1}
CHAT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
BODIES: dict[str, Any] = {
    "/v1/rewards": REWARDS | {"stop": {"rule": "decided", "gamma": 0.1}, "reference": "R", "return_samples": True},
    "/v1/chat/completions": {"messages": [*SAID, {"role": "assistant", "content": "A."}], "stream": False},
    "/v1/chat/completions?vote": {
        "model": "judge",
        "messages": SAID,
        "grm": {"k": 2, "verdict": {"kind": "winner", "marks": ["[["], "lead": "[[", "values": {"A": 0, "B": 1}}},
        "temperature": 0,
        "max_tokens": 16,
        "seed": 1,
    },
    "/v1/chat/completions?compared": {
        "messages": [*SAID, {"role": "response_1", "content": "A."}, {"role": "response_2", "content": "B."}]
    },
    "/get_reward": {"query": [CHAT + "A.<|im_end|>"], "prompts": [CHAT], "labels": [{"answer": [42]}]},
    "/reward?shape=object": {"prompt": SAID, "response": "A.", "label": {"a": 1}, "group": "g"},
    "/v1/score/evaluation": {"model": "m", "messages": [CHAT + "A."]},
    "/verify": {
        "responses_create_params": {"input": SAID, "more": [1]},
        "response": {"output": OUTPUT},
        "principle": "P",
        "_ng_task_index": 3,
        "instance_config": {},
        "extra": {"a": [None]},
    },
    "/compare": {"conversation_history": SAID, "response_objs": [{"output": OUTPUT}, {"output": OUTPUT}]},
    "/aggregate_metrics": {"verify_responses": [{"reward": 5.5, "_ng_task_index": 1, "mask_sample": False}]},
    "/v1/rerank": {"query": "Q", "documents": ["A.", {"text": "B."}], "top_n": 1, "return_documents": True},
    "/v1/score": {"text_1": ["Q"], "text_2": ["A.", "B."]},
    "/api/rewardanything": {"principle": "P", "prompt": "Q", "responses": {"a": "A.", "b": "B."}},
    "/api/rewardanything_batch": [{"prompt": "Q", "responses": {"a": "A."}}],
}

TEXT = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["", "\ud800", "\udfff x", "\x00", "\u2028", "\r", "<|im_end|>", "[/INST]", "assistant", "text", "message"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, math.nan, math.inf, -0.0])
DEEP = st.integers(50, 900).map(lambda depth: json.loads("[" * depth + "]" * depth))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | DEEP,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a value; the empty path, its own, comes first."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [before, *(place for key in keys for place in places(value[key], (*before, key)))]


@st.composite
def changed(draw: st.DrawFn, body: Any) -> Any:
    """The body with some values replaced, added or removed."""
    whole = [copy.deepcopy(body)]
    for _ in range(draw(st.integers(1, 3))):
        place: tuple[Any, ...] = draw(st.sampled_from(places(whole[0])))
        *path, last = (0, *place)
        inside: Any = whole
        for key in path:
            inside = inside[key]
        kind = draw(st.sampled_from(["replace", "replace", "add", "drop"]))
        if kind == "add" and isinstance(inside[last], dict):
            inside[last][draw(TEXT)] = draw(VALUES)
        elif kind == "add" and isinstance(inside[last], list):
            inside[last].append(draw(VALUES))
        elif kind == "drop" and path:
            del inside[last]
        else:
            inside[last] = draw(VALUES)
    return whole[0]


Post = Callable[..., httpx.Response]
"""(url, body, content type) -> answer"""


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """One app for all bodies: no body may break a later one."""
    folder: Path = tmp_path_factory.mktemp("cache")
    overrides = (f"cache_dir={folder}", "stopping.audit_share=0", "meta_rm.kind=fake", *QUICK)
    app = create_app(load_settings({}, overrides), FakeEngine(), FakeMetaRM())
    logging.disable(logging.CRITICAL)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

        def posting(url: str, body: bytes, kind: str = "application/json") -> httpx.Response:
            return runner.run(client.post(url, content=body, headers={"Content-Type": kind}))

        yield posting
        runner.run(client.aclose())
        runner.run(lifespan.__aexit__(None, None, None))
    logging.disable(logging.NOTSET)


def judged_or_refused(response: httpx.Response, sent: object) -> None:
    # 504 is right for a deadline that cannot be met.
    if response.status_code == 504 and isinstance(sent, dict) and "deadline_s" in sent:
        return
    assert response.status_code in (200, 400, 409, 413, 422), response.text
    if response.status_code == 200:
        strict_json(response.content)
    else:
        ErrorResponse.model_validate_json(response.content)


CHEAP = settings(derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("url", BODIES)
@settings(CHEAP, max_examples=80)
@given(data=st.data())
def test_any_value_at_any_place(post: Post, url: str, data: st.DataObject) -> None:
    body = data.draw(changed(BODIES[url]))
    judged_or_refused(post(url, json.dumps(body).encode()), body)


@pytest.mark.parametrize("url", BODIES)
def test_the_unchanged_bodies_are_valid(post: Post, url: str) -> None:
    response = post(url, json.dumps(BODIES[url]).encode())
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("url", BODIES)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b;c"]
)
def test_a_valid_body_of_another_content_type_is_refused(post: Post, url: str, kind: str) -> None:
    response = post(url, json.dumps(BODIES[url]).encode(), kind)
    assert response.status_code in (415, 422)
    ErrorResponse.model_validate_json(response.content)


@settings(CHEAP, max_examples=150)
@given(
    whole=st.sampled_from(list(BODIES.values())).map(lambda body: json.dumps(body).encode()),
    cut=st.integers(0, 400),
    junk=st.binary(max_size=12) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xef\xbb\xbf"]),
    url=st.sampled_from(list(BODIES)),
)
def test_any_bytes(post: Post, whole: bytes, cut: int, junk: bytes, url: str) -> None:
    judged_or_refused(post(url, junk), None)
    judged_or_refused(post(url, whole[:cut] + junk + whole[cut:]), None)
    judged_or_refused(post(url, whole[:cut]), None)


@pytest.mark.parametrize("url", BODIES)
def test_half_a_surrogate_pair_at_every_place(post: Post, url: str) -> None:
    """Half a surrogate pair in place of each value, as a key and as an item."""
    for place in places(BODIES[url]):
        for half in ("\ud800", {"\udfff": 1}, ["\ud800"]):
            body = [copy.deepcopy(BODIES[url])]
            inside: Any = body
            for key in (0, *place)[:-1]:
                inside = inside[key]
            inside[(0, *place)[-1]] = half
            judged_or_refused(post(url, json.dumps(body[0]).encode()), body[0])


@pytest.mark.parametrize(
    "row",
    [{"reward": 10**400}, {"reward": math.inf}, {"reward": math.nan}, {"reward": True}, {"reward": "5"}, {}],
    ids=lambda row: str(row)[:20],
)
def test_a_mean_counts_only_finite_rewards(post: Post, row: dict[str, Any]) -> None:
    body = {"verify_responses": [{"reward": 4, "_ng_task_index": 1}, row, {"reward": 6, "_ng_task_index": 1}]}
    response = post("/aggregate_metrics", json.dumps(body).encode())
    assert response.json()["key_metrics"] == {"mean/reward": 5}
