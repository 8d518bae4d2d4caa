"""What `collect_file` asks of a server and writes down, with a server of the test's own."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from grm_client import AsyncGRMClient
from grm_client.data.collect import collect_file, survey, useless
from grm_client.data.trajectories import read_rows
from grm_client.data.work_file import Progress
from grm_client.errors import Stopped

Answer = Callable[..., dict[str, Any]]
Sample = Callable[..., dict[str, Any]]
Handler = Callable[[dict[str, Any]], Awaitable[httpx.Response]]

PAIR = {"query": "q", "responses": ["a", "b"], "label": 1}


def line(**fields: Any) -> bytes:
    return json.dumps(PAIR | fields).encode() + b"\n"


def rows(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(row) for row in out.splitlines()]


async def collected(
    handler: Handler, *source: bytes, n: int = 3, hint: bool = False, skip: int = 0, seed: int | None = None
) -> tuple[bytes, Progress]:
    async def serve(request: httpx.Request) -> httpx.Response:
        return await handler(json.loads(request.content))

    out = io.BytesIO()
    async with AsyncGRMClient(transport=httpx.MockTransport(serve)) as client:
        progress = await collect_file(
            client, source, out, n=n, hint=hint, concurrency=3, seed=seed, skip=skip, on_progress=lambda _: None
        )
    return out.getvalue(), progress


@pytest.fixture
def judge(answer: Answer, sample: Sample) -> Callable[..., Handler]:
    """judge([[3, 9], ...], hinted=[[2, 8], ...], asked=[]): says these scores, and keeps what it was asked."""

    def build(scores: list[Any], hinted: list[Any] | None = None, asked: list[dict[str, Any]] | None = None) -> Handler:
        async def serve(body: dict[str, Any]) -> httpx.Response:
            if asked is not None:
                asked.append(body)
            given = hinted if "hint" in body else scores
            assert given is not None
            samples = [
                sample(index, order=[0, 1], scores=one, failure=None if one else "no_scores")
                for index, one in enumerate(given)
            ]
            return httpx.Response(200, json=answer(samples=samples))

        return serve

    return build


async def test_a_row_says_all_there_is_to_know(judge: Callable[..., Handler], answer: Answer) -> None:
    asked: list[dict[str, Any]] = []
    given = line(id=[7], reference="known", principles="be fair", task="math", temperature=0.9)
    out, progress = await collected(judge([[3, 9], [5, 5], None], asked=asked), given, seed=4)
    assert asked == [
        {
            "query": "q",
            "responses": ["a", "b"],
            "reference": "known",
            "principles": "be fair",
            "task": "math",
            "temperature": 0.9,
            "seed": 4,
            "k": 3,
            "stop": {"rule": "fixed"},
            "min_votes": 1,
            "return_samples": True,
            "list_size": 2,
            "aggregate": "mean",
            "reading": "expected",
            "principles_from": "sample",
        }
    ]
    (row,) = rows(out)
    assert row.pop("samples") == [
        {
            "index": index,
            "order": [0, 1],
            "principles": f"principles of {index}",
            "critique": f"critique of {index}",
            "scores": scores,
            "expected_scores": [3.1, 8.75, None],
            "right": right,
            "failure": failure,
            "hinted": False,
            "finish_reason": "stop",
            "completion_tokens": 30,
            "seed": 70 + index,
        }
        for index, (scores, right, failure) in enumerate(
            [([3, 9], True, None), ([5, 5], False, None), (None, None, "no_scores")]
        )
    ]
    assert row == {
        "line": 1,
        "id": [7],
        "model": "judge",
        "query": "q",
        "responses": ["a", "b"],
        "label": 1,
        "reference": "known",
        "principles": "be fair",
        "task": "math",
        "difficulty": "mixed",
        "usage": answer()["usage"],
    }
    assert (progress.done, progress.failed, progress.samples, progress.completion_tokens) == (1, 0, 3, 90)


async def test_what_a_line_says_of_its_own_stands_but_for_what_collecting_needs(judge: Callable[..., Handler]) -> None:
    asked: list[dict[str, Any]] = []
    own = {"k": 64, "stop": {"rule": "decided"}, "return_samples": False, "min_votes": 9, "hint": 1}
    row = line(**own, principles_from="query", list_size=4, seed=8)
    await collected(judge([[3, 9]], asked=asked), row, n=5, seed=4)
    assert asked[0] == {
        "query": "q",
        "responses": ["a", "b"],
        "list_size": 4,
        "seed": 8,
        "k": 5,
        "stop": {"rule": "fixed"},
        "min_votes": 1,
        "return_samples": True,
        "principles_from": "sample",
        "aggregate": "mean",
        "reading": "expected",
    }


class TestHint:
    async def test_items_that_are_never_right_are_asked_again(self, judge: Callable[..., Handler]) -> None:
        asked: list[dict[str, Any]] = []
        out, progress = await collected(
            judge([[9, 3], [5, 5], None], hinted=[[2, 8], [9, 1], [1, 2]], asked=asked), line(), hint=True
        )
        first, again = asked
        assert again == first | {"hint": 1}
        (row,) = rows(out)
        assert [(one["hinted"], one["right"]) for one in row["samples"]] == [
            (False, False),
            (False, False),
            (False, None),
            (True, True),
            (True, False),
            (True, True),
        ]
        assert row["difficulty"] == "unsolved"
        assert row["usage"]["completion_tokens"] == 480
        assert progress.samples == 6

    @pytest.mark.parametrize("scores", [[[3, 9], [9, 3]], [[3, 9], [3, 9]], [None, [None, 9]]])
    async def test_others_are_not(self, judge: Callable[..., Handler], scores: list[Any]) -> None:
        out, _ = await collected(judge(scores), line(), hint=True)
        assert len(rows(out)[0]["samples"]) == 2

    async def test_nobody_is_told_unless_it_was_asked_for(self, judge: Callable[..., Handler]) -> None:
        out, _ = await collected(judge([[9, 3]]), line())
        assert len(rows(out)[0]["samples"]) == 1

    async def test_a_single_answer_is_told_good_or_bad(self, judge: Callable[..., Handler]) -> None:
        asked: list[dict[str, Any]] = []
        out, _ = await collected(
            judge([[8]], hinted=[[2]], asked=asked), line(responses=["a"], label=0), n=1, hint=True
        )
        assert [body.get("hint") for body in asked] == [None, 0]
        assert [one["right"] for one in rows(out)[0]["samples"]] == [False, True]


async def test_an_item_of_which_nothing_parsed_keeps_its_failures() -> None:
    async def serve(body: dict[str, Any]) -> httpx.Response:
        details = {"no_scores": 2, "engine_error": 1}
        error = {"code": "too_few_votes", "message": "m", "retryable": True, "details": details}
        return httpx.Response(502, json={"error": error})

    out, progress = await collected(serve, line(), hint=True)
    (row,) = rows(out)
    assert [one["failure"] for one in row["samples"]] == ["no_scores", "no_scores", "engine_error"]
    assert [one["right"] for one in row["samples"]] == [None, None, None]
    assert (row["difficulty"], row["model"], row["usage"]) == (None, None, None)
    assert list(read_rows([out]))
    assert (progress.done, progress.failed) == (1, 0)


async def test_a_hint_that_does_not_parse_is_a_failure_and_not_a_verdict(judge: Callable[..., Handler]) -> None:
    fine = judge([[9, 3]])

    async def serve(body: dict[str, Any]) -> httpx.Response:
        if "hint" not in body:
            return await fine(body)
        return httpx.Response(
            502, json={"error": {"code": "too_few_votes", "message": "m", "details": {"no_scores": 1}}}
        )

    out, _ = await collected(serve, line(), n=1, hint=True)
    (row,) = rows(out)
    assert [(one["hinted"], one["failure"], one["right"]) for one in row["samples"]] == [
        (False, None, False),
        (True, "no_scores", None),
    ]
    assert (row["model"], row["difficulty"]) == ("judge", "unsolved")


async def test_bad_lines_get_an_error_and_useless_ones_nothing(judge: Callable[..., Handler]) -> None:
    fine = judge([[3, 9]])

    async def serve(body: dict[str, Any]) -> httpx.Response:
        if body["query"] == "refused" or not body.get("responses"):
            return httpx.Response(422, json={"error": {"code": "invalid_body", "message": "m"}})
        return await fine(body)

    source = [line(id=1), b"no JSON\n", line(label=True), b"\n", line(query="refused"), line(responses=[]), line()]
    out, progress = await collected(serve, *source)
    assert [(row["line"], "error" in row) for row in rows(out)] == [
        (1, False),
        (2, True),
        (5, True),
        (6, True),
        (7, False),
    ]
    assert (progress.lines, progress.done, progress.failed) == (7, 2, 3)
    assert survey(source, read_rows(out.splitlines(keepends=True))).lines == 7


async def test_when_nobody_answers_any_more_it_stops_and_goes_on_later(judge: Callable[..., Handler]) -> None:
    fine, dead = judge([[3, 9]]), False

    async def serve(body: dict[str, Any]) -> httpx.Response:
        if dead:
            raise httpx.ConnectError("refused")
        return await fine(body)

    source = [line(id=1), line(id=2)]
    first, _ = await collected(serve, source[0])
    dead = True
    with pytest.raises(Stopped, match="goes on"):
        await collected(serve, *source, skip=1)
    dead = False
    rest, _ = await collected(serve, *source, skip=1)
    assert [row["line"] for row in rows(first + rest)] == [1, 2]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"label": 0}, None),
        ({"label": None}, "no label"),
        ({"label": 2}, "label is no index of a response"),
        ({"label": -1}, "label is no index of a response"),
        ({"label": True}, "label is no index of a response"),
        ({"label": 1.0}, "label is no index of a response"),
        ({"label": "1"}, "label is no index of a response"),
        ({"label": [1]}, "label is no index of a response"),
        ({"responses": ["a"], "label": 1}, None),
        ({"responses": ["a"], "label": 0}, None),
        ({"responses": ["a"], "label": 2}, "label of one response is not 0 or 1"),
        ({"responses": ["a"], "label": False}, "label of one response is not 0 or 1"),
        # What is wrong with the request is the server's to say.
        ({"responses": []}, None),
        ({"responses": "ab"}, None),
    ],
)
def test_which_labels_can_be_used(fields: dict[str, Any], reason: str | None) -> None:
    assert useless(PAIR | fields) == reason


class TestSurvey:
    def test_lines_are_counted_and_useless_ones_by_reason(self) -> None:
        source = [line(), b"\n", b"no JSON\n", line(label=None), line(label=5), line(label=None)]
        assert survey(source, ()) == (6, Counter({"no label": 2, "label is no index of a response": 1}))

    async def test_rows_of_these_lines_are_taken(self, judge: Callable[..., Handler]) -> None:
        source = [line(id=1), line(label=None), line(id=3, task="math", k=9), b"{\n", line(id=5)]
        out, _ = await collected(judge([[3, 9]]), *source)
        written = out.splitlines(keepends=True)
        for done in range(len(written) + 1):
            assert survey(source, read_rows(written[:done])).lines == 5

    @pytest.mark.parametrize(
        "changed",
        [
            line(query="another"),
            line(label=0),
            line(label=None),
            line(reference="new"),
            line(principles="new"),
            line(task="new"),
            b"{\n",
            b"\n",
            None,
        ],
    )
    async def test_rows_of_other_lines_are_refused(self, judge: Callable[..., Handler], changed: bytes | None) -> None:
        out, _ = await collected(judge([[3, 9]]), line(), line())
        source = [line(), *([] if changed is None else [changed])]
        with pytest.raises(ValueError, match="the row of line 2"):
            survey(source, read_rows(out.splitlines(keepends=True)))
