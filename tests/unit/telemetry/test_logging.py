"""The format of log lines."""

import json
import logging
from typing import Any

import pytest

from grm_server.telemetry.context import RequestContext, current_request
from grm_server.telemetry.logging import VLLM_CONFIG, JsonLines, TextLines, vllm_handler, with_facts


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("grm_server.x").makeRecord(
        "grm_server.x", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )


def test_a_line_of_json_has_the_request_and_the_facts() -> None:
    token = current_request.set(RequestContext("r-1", "alice", "ab" * 16))
    try:
        line = json.loads(JsonLines().format(record("took %d", 3, **with_facts({"k_used": 4, "ms": 1.5}))))
    finally:
        current_request.reset(token)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "grm_server.x",
        "message": "took 3",
        "k_used": 4,
        "ms": 1.5,
        "request_id": "r-1",
        "tenant": "alice",
        "trace_id": "ab" * 16,
    }


@pytest.mark.parametrize("nasty", ["two\nlines", "\u2028", "\ud800", '"quoted"'])
def test_json_stays_on_one_line(nasty: str) -> None:
    text = JsonLines().format(record("%s", nasty))
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert json.loads(text)["message"] == nasty


def test_a_traceback_is_one_field() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        failed = logging.LogRecord("a", logging.ERROR, "", 1, "it broke", None, (type(error), error, None))
    line = json.loads(JsonLines().format(failed))
    assert line["exception"] == "ValueError: broken"


def test_a_line_of_text_ends_with_its_facts() -> None:
    token = current_request.set(RequestContext("r-1"))
    try:
        text = TextLines().format(record("done", **with_facts({"status": 200})))
    finally:
        current_request.reset(token)
    assert text.endswith("WARNING grm_server.x: done status=200 request_id=r-1")


def test_outside_of_a_request_nothing_is_added() -> None:
    assert TextLines().format(record("done")).endswith("grm_server.x: done")


def test_several_judgements_of_one_request_are_summed() -> None:
    context = RequestContext("r")
    context.judgements.update({"a": {"n": 2, "k_used": 4, "samples": 8}, "b": {"n": 3, "k_used": 6}})
    assert context.outcome() == {"judgements": 2, "n": 5, "k_used": 6, "samples": 8}


def test_vllm_logs_json_at_its_own_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "warning")
    config = json.loads(VLLM_CONFIG.read_text())
    assert config["handlers"]["stderr"]["()"] == "grm_server.telemetry.logging.vllm_handler"
    before = logging.getLogger("vllm").level
    try:
        assert isinstance(vllm_handler().formatter, JsonLines)
        assert logging.getLogger("vllm").level == logging.WARNING
    finally:
        logging.getLogger("vllm").setLevel(before)
