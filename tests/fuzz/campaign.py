"""Schemathesis against the served OpenAPI document: every operation, then chains of operations.

    python -m tests.fuzz.campaign --examples 300 --seed 7        (make fuzz)

The app runs in this process around a fake engine. Because this engine always answers, the only allowed status from 500
up is 504, and only for a case that sets a deadline.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from pydantic import ValidationError
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from grm_client.events import EventReader
from grm_server.api.schemas import ErrorResponse, RewardsResponse
from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.meta_rm.fake import FakeMetaRM
from grm_server.settings import load_settings

# Groups must not wait for members that never arrive, and no case may take seconds. Schemathesis uses the host name
# "testserver".
QUICK = (
    *("grouping.idle_s=0.002", "grouping.window_s=0.005", "limits.max_samples=64", "judge.k=2"),
    'http.allowed_hosts=["testserver"]',
)
LONGEST_WAIT_S = 0.005


@dataclass
class Report:
    """Result of a campaign."""

    cases: Counter[str] = field(default_factory=Counter)
    """Count by phase."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Count by operation and status."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """By operation and kind, the first of each: what was wrong, and a command that reproduces it."""

    @property
    def operations(self) -> set[str]:
        return {operation for operation, _ in self.answers}


def run(*, seed: int, examples: int, steps: int = 6, boundaries: bool = True) -> Report:
    """One campaign. examples: random cases for each operation and kind of data, and as many chains of up to `steps`.
    boundaries: also the fixed 4,600 cases at the limits of all values (15 s)."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({}, (f"cache_dir={folder}", "stopping.audit_share=0", "meta_rm.kind=fake", *QUICK))
        app = create_app(settings, FakeEngine(), FakeMetaRM())
        config = {
            "seed": seed,
            "continue-on-failure": True,
            "max-stream-events": 1000,
            "generation": {"max-examples": examples, "deterministic": True, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"max-steps": steps}, "coverage": {"enabled": boundaries}},
            "checks": {
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},
                # Valid data may still exceed a limit of the operator: see `valid_bodies_are_understood`.
                "positive_data_acceptance": {"enabled": False},
            },
        }
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(config))
        report = Report()
        for event in from_schema(schema).execute():
            _count(report, event)
    return report


ALWAYS_ANSWERED = {"POST /get_reward", "POST /reward", "POST /v1/score/evaluation", "POST /verify"}
"""Trainers end with an error on anything but a reward, so an item of a wrong type costs only itself: it gets the
neutral reward instead of a 422 (tests/integration/test_odd_items.py)."""


def _count(report: Report, event: events.EngineEvent) -> None:
    if isinstance(event, events.NonFatalError | events.FatalError):
        reason = event.value if isinstance(event, events.NonFatalError) else event.exception
        report.failures.setdefault(("schemathesis", type(reason).__name__), str(reason))
    if not isinstance(event, events.ScenarioFinished):
        return
    recorded = event.recorder
    report.cases[event.phase.value] += len(recorded.interactions)
    for case_id, interaction in recorded.interactions.items():
        operation = recorded.cases[case_id].value.operation.label
        if interaction.response is not None:
            report.answers[operation, interaction.response.status_code] += 1
        for check in recorded.checks.get(case_id, []):
            if check.name == "negative_data_rejection" and operation in ALWAYS_ANSWERED:
                continue
            if (found := check.failure_info) is not None:
                said = f"{found.failure.message}\n{found.code_sample}\n{_beginning(interaction.response)}"
                report.failures.setdefault((operation, f"{check.name} {found.failure.title}"), said)


def _beginning(response: Any) -> str:
    return "" if response is None else f"{response.status_code} {response.content[:500]!r}"


@schemathesis.hook
def before_call(_: Any, case: Any, kwargs: Any) -> None:
    """Shorten waits that the document allows, and set values that random data would never hit."""
    query, headers = case.query or {}, case.headers or {}
    for name in {"idle_s", "window_s"} & query.keys():
        query[name] = _at_most(query[name], LONGEST_WAIT_S)
    if headers.get("X-GRM-Group-Size") in (None, "null"):  # a header cannot be null
        headers.pop("X-GRM-Group-Size", None)
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if case.operation.label == "POST /v1/rewards" and len(str(case.body)) % 4 == 0:
        case.headers = {**headers, "Accept": "text/event-stream"}
    if case.operation.label == "POST /v1/chat/completions" and positive and isinstance(case.body, dict):
        # A chat to vote on ends with the judge's question, a chat to score with the response.
        case.body["messages"][-1]["role"] = "user" if case.body.get("grm") else "assistant"
        case.body.pop("stream", None)


def _at_most(value: Any, limit: float) -> Any:
    try:
        return value if float(value) <= limit else limit
    except (TypeError, ValueError):
        return value


@schemathesis.check
def errors_are_honest(_: Any, response: Any, case: Any) -> None:
    """Every error has the documented shape, and none is the server's fault."""
    if response.status_code < 400:
        return
    try:
        error = ErrorResponse.model_validate_json(response.content).error
    except ValidationError as problem:
        raise AssertionError(f"an error does not have the documented shape: {problem}") from None
    late = error.code == "deadline_exceeded" and "deadline_s" in str(case.body)
    assert response.status_code < 500 or (response.status_code == 504 and late), error.message


@schemathesis.check
def valid_bodies_are_understood(_: Any, response: Any, case: Any) -> None:
    """A body that fits the document may exceed a limit or combine wrong options, but is never rejected as invalid."""
    if response.status_code != 422 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    error = ErrorResponse.model_validate_json(response.content).error
    # JSON Schema accepts 8.0 as an integer, and cannot say that a turn must hold something; the server does.
    known = ("valid integer", "the turn says nothing")
    assert error.code != "invalid_body" or any(words in error.message for words in known), error.message


@schemathesis.check
def streams_end_with_an_answer(_: Any, response: Any, case: Any) -> None:
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    assert response.content.endswith(b"\n\n")
    last_event = response.content.rpartition(b"event: ")[2]
    if last_event.startswith(b"error\n"):
        assert b"deadline_exceeded" in last_event, last_event
        return
    *begun, last = EventReader().feed(response.content)
    assert begun[0].name == "started"
    assert last.name == "rewards"
    RewardsResponse.model_validate(last.data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: from the clock")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began_s = time.monotonic()
    report = run(seed=options.seed, examples=options.examples, steps=options.steps)
    for operation in sorted(report.operations):
        statuses = {status: count for (name, status), count in sorted(report.answers.items()) if name == operation}
        print(f"{operation:36} {statuses}")  # noqa: T201
    cases = f"{report.cases.total()} cases {dict(report.cases)}"
    print(f"seed {options.seed}: {cases}, {len(report.operations)} operations,")  # noqa: T201
    print(f"{len(report.failures)} failures, {time.monotonic() - began_s:.0f} s")  # noqa: T201
    for (operation, kind), said in report.failures.items():
        print(f"\n{operation}: {kind}\n{said}")  # noqa: T201
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
