"""The event stream format, according to its standard, and the meaning of the server's events."""

from __future__ import annotations

import json
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client import APIError, ConnectionFailed, Event, TimedOut
from grm_client.events import EventReader

URL = "http://judge:8000"


def read(*chunks: bytes) -> list[Event]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


class TestFormat:
    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_every_line_end_is_accepted(self, end: bytes) -> None:
        text = b'event: wave\ndata: {\ndata: "a": 1}\n\ndata: {}\n\n'.replace(b"\n", end)
        expected = [Event("wave", {"a": 1}), Event("message", {})]
        assert read(text) == expected
        assert read(*(bytes([byte]) for byte in text)) == expected

    def test_cr_lf_split_over_two_chunks_is_one_line_end(self) -> None:
        assert read(b"event: wave\r", b"\ndata: {}\r", b"\n\r", b"\n") == [Event("wave", {})]

    def test_comments_and_unused_fields_are_ignored(self) -> None:
        text = b": ping\n\n:\nid: 7\nretry: 10\nnonsense\nevent: wave\ndata: {}\n\n: ping\n\n"
        assert read(text) == [Event("wave", {})]

    def test_one_space_after_the_colon_is_removed(self) -> None:
        assert read(b"event:wave\ndata:{}\n\n") == [Event("wave", {})]
        assert read(b"event:  wave\ndata: {}\n\n") == [Event(" wave", {})]

    def test_the_last_name_counts_for_its_event_only(self) -> None:
        text = b"event: x\nevent: wave\ndata: {}\n\ndata: {}\n\n"
        assert [event.name for event in read(text)] == ["wave", "message"]

    def test_a_name_without_data_is_not_an_event(self) -> None:
        assert read(b"event: wave\n\ndata: {}\n\n") == [Event("message", {})]

    def test_an_unfinished_event_is_dropped(self) -> None:
        assert read(b"event: wave\ndata: {}\n") == read(b"event: wave\ndata: {}") == []

    @pytest.mark.parametrize("cut", range(4))
    def test_a_byte_order_mark_is_ignored_only_at_the_start(self, cut: int) -> None:
        text = b"\xef\xbb\xbfdata: {}\n\n"
        assert read(text[:cut], text[cut:]) == [Event("message", {})]
        assert read(b"\n", text) == []

    @pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
    def test_other_line_ends_of_python_do_not_end_a_line(self, mark: str) -> None:
        data = {"critique": f"a{mark}b"}
        line = json.dumps(data, ensure_ascii=False).encode()
        assert read(b"data: " + line + b"\n\n") == [Event("message", data)]

    @given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=4), st.data())
    def test_chunks_may_end_anywhere(self, events: list[dict[str, str]], draw: st.DataObject) -> None:
        text = b"".join(b"event: e\ndata: %s\n\n" % json.dumps(data, ensure_ascii=False).encode() for data in events)
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        bounds = [0, *cuts, len(text)]
        chunks: Sequence[bytes] = [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
        assert read(*chunks) == [Event("e", data) for data in events]


class TestMeaning:
    @pytest.mark.parametrize("data", [b"", b"[1]", b"{", b'{"a": NaN}', b'"\xff"'])
    def test_data_that_is_not_an_object_is_a_bad_answer(self, data: bytes) -> None:
        with pytest.raises(APIError) as caught:
            read(b"event: wave\ndata: " + data + b"\n\n")
        assert (caught.value.status, caught.value.code) == (200, "bad_answer")

    def test_an_error_is_raised_after_the_events_before_it(self) -> None:
        error = {"code": "deadline_exceeded", "message": "late", "param": None, "retryable": True, "details": {"n": 1}}
        text = b"event: wave\ndata: {}\n\nevent: error\ndata: %s\n\n" % json.dumps({"error": error}).encode()
        events = EventReader().feed(text)
        assert next(events) == Event("wave", {})
        with pytest.raises(APIError) as caught:
            next(events)
        assert (caught.value.status, caught.value.code, caught.value.message) == (200, "deadline_exceeded", "late")
        assert (caught.value.retryable, caught.value.details) == (True, {"n": 1})

    def test_an_unreadable_error_event_is_a_bad_answer(self) -> None:
        with pytest.raises(APIError) as caught:
            read(b'event: error\ndata: {"detail": "sorry"}\n\n')
        assert caught.value.code == "bad_answer"
        assert "sorry" in caught.value.message

    def test_a_stream_that_ends_before_its_rewards_raises(self) -> None:
        reader = EventReader()
        assert list(reader.feed(b"event: wave\ndata: {}\n\nevent: rewards\ndata: {}\n"))
        for failure, kind in ((None, ConnectionFailed), (httpx.ReadError("x"), ConnectionFailed)):
            with pytest.raises(kind, match=URL):
                reader.end(failure, URL)
        with pytest.raises(TimedOut):
            reader.end(httpx.ReadTimeout(""), URL)

    def test_a_failure_after_the_rewards_is_ignored(self) -> None:
        reader = EventReader()
        assert list(reader.feed(b"event: rewards\ndata: {}\n\n"))
        reader.end(httpx.ReadError("x"), URL)
