"""The client reads the events that the server writes. Any other bytes are events or an APIError, never a crash."""

import asyncio
import json
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from grm_client.errors import APIError
from grm_client.events import Event, EventReader
from grm_server.api import schemas
from grm_server.api.sse import EventStream

# Without surrogates: the server refuses them in requests, and decoding never produces any.
TEXT = st.text() | st.text(st.sampled_from('\r\n\u2028\u2029\x85\x00\x0b\x0c\x1c\ufeff:\U0001f468\u200d e\u0301\\"'))
CUTS = st.lists(st.integers(0, 10_000), max_size=8)


def chunks(whole: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[one:other] for one, other in pairwise(bounds)]


def sample(critique: str, principles: str | None) -> schemas.SampleOut:
    return schemas.SampleOut(
        index=0,
        order=[1, 0],
        principles=principles,
        critique=critique,
        thought=critique,
        scores=[3, None],
        expected_scores=None,
        meta_reward=None,
        kept=None,
        finish_reason="stop",
        completion_tokens=1,
        seed=2**53 - 1,
        finished_s=0.1,
        failure=None,
    )


def written(named: list[tuple[str, Any]]) -> bytes:
    """The body that the server streams for these events."""

    async def events() -> AsyncGenerator[Any]:
        for index in range(len(named)):
            yield index

    def name(event: Any) -> Any:
        return named[event]

    async def body() -> bytes:
        lines = cast(AsyncGenerator[bytes], EventStream(events(), name).body_iterator)
        return b"".join([line async for line in lines])

    return asyncio.run(body())


@given(st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=4), CUTS)
def test_any_text_arrives_as_it_was_written(texts: list[tuple[str, str | None]], cuts: list[int]) -> None:
    named = [("sample", sample(*text)) for text in texts]
    reader = EventReader()
    read = [event for chunk in chunks(written(named), cuts) for event in reader.feed(chunk)]
    assert read == [Event(name, data.model_dump()) for name, data in named]


JUNK = st.lists(
    st.binary(max_size=6)
    | st.sampled_from(
        [b"\r", b"\n", b"\r\n", b":", b"data: ", b"data:{}", b"event: ", b"event: error\n", b"\xef\xbb\xbf"]
    )
    | st.sampled_from([b'data: {"a": 1}\n\n', b"data: {\n", b"data: }\n\n", b"data: [1]\n\n", b"event: rewards\n"])
    | st.sampled_from([b"event: wave\r\n", b"data: {\r\n", b"data: }\r\n", b"data: {}\r\n", b"\r\n"])
    | st.sampled_from([b'data: {"error": {"code": "c", "message": "m"}}\n\n', b"data: " + b"[" * 5000 + b"\n\n"]),
    max_size=16,
).map(b"".join)


def events_until_an_error(whole: bytes, cuts: list[int]) -> tuple[list[Event], str | None]:
    """The events, and the code of the error that ended the stream."""
    reader, found = EventReader(), []
    try:
        for piece in chunks(whole, cuts):
            for event in reader.feed(piece):
                found.append(event)
    except APIError as error:
        return found, error.code
    return found, None


@given(JUNK, CUTS)
@example(b"data: {}\r", [9])
@example(b"event: wave\r\ndata: {}\r\n\r\n", [])
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: {}\n\n", [1, 2, 3, 4])
def test_any_bytes_give_the_same_events_or_error_wherever_they_are_cut(junk: bytes, cuts: list[int]) -> None:
    whole = events_until_an_error(junk, [])
    assert events_until_an_error(junk, cuts) == whole
    assert events_until_an_error(junk, list(range(len(junk)))) == whole


@given(st.dictionaries(TEXT, TEXT, max_size=3), st.sampled_from(["\n", "\r\n", "\r"]))
def test_data_over_several_lines_is_one_event(data: dict[str, str], end: str) -> None:
    lines = json.dumps(data, indent=1).split("\n")
    text = "".join(f"data: {line}{end}" for line in lines) + end
    assert list(EventReader().feed(text.encode())) == [Event("message", data)]
