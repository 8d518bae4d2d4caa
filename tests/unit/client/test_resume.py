"""A second run on an output file: which lines it sends, what it refuses, and the file it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_client import APIError, AsyncGRMClient
from grm_client.data.jsonl import Labels, error_row, result_row
from grm_client.data.progress import Progress
from grm_client.data.resume import Mixture, NotOurFile, read_earlier, refuse_other_requests
from grm_client.data.score_file import score_file
from grm_client.data.work_file import keys, scored_key
from grm_client.errors import Stopped

Answer = Callable[..., dict[str, Any]]


def line(query: str, **fields: Any) -> bytes:
    return json.dumps({"query": query, "responses": ["a", "b", "c"]} | fields).encode() + b"\n"


class Server:
    """Answers with a new id each time, and records the queries. `broken` ones are refused, `lost` ones unreachable."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.model = "judge"
        self.sent: list[str] = []
        self.broken: set[str] = set()
        self.lost: set[str] = set()
        self.count = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            assert request.url.path == "/v1/models"
            return httpx.Response(200, json={"object": "list", "data": [{"id": self.model, "role": "judge"}]})
        query = json.loads(request.content)["query"]
        if query in self.lost:
            raise httpx.ConnectError("refused")
        self.sent.append(query)
        if query in self.broken:
            return httpx.Response(422, json={"error": {"code": "invalid_body", "message": "m"}})
        self.count += 1
        return httpx.Response(200, json=self._answer(id=f"rw-{self.count}", model=self.model))


@pytest.fixture
def server(answer: Answer) -> Server:
    return Server(answer)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


async def run(server: Server, path: Path, source: Iterable[bytes], **options: Any) -> Progress:
    server.sent.clear()
    earlier = read_earlier(path, options)
    async with AsyncGRMClient(transport=httpx.MockTransport(server)) as client:
        with earlier.open() as out:
            return await score_file(
                client, source, out, concurrency=1, options=options, earlier=earlier, on_progress=lambda _: None
            )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_text().splitlines()]


def ids(path: Path) -> list[tuple[int, str | None]]:
    return [(row["line"], row.get("request_id")) for row in rows(path)]


def content(path: Path) -> bytes:
    return path.read_bytes()


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def replace_once(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


LINES = [line(query) for query in "ABCD"]


async def test_a_second_run_sends_nothing_and_changes_nothing(server: Server, path: Path) -> None:
    await run(server, path, LINES, k=4)
    before = content(path)
    progress = await run(server, path, LINES, k=4)
    assert server.sent == []
    assert (progress.kept, progress.done, progress.failed, progress.lines) == (4, 0, 0, 4)
    assert content(path) == before
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


async def test_an_interrupted_run_resumes(server: Server, path: Path) -> None:
    server.lost = {"C"}
    with pytest.raises(Stopped):
        await run(server, path, LINES)
    append(path, b'{"line": 3, "id')
    server.lost = {"D"}
    with pytest.raises(Stopped):
        await run(server, path, LINES)
    assert server.sent == ["C"]
    server.lost = set()
    await run(server, path, LINES)
    assert server.sent == ["D"]
    assert ids(path) == [(1, "rw-1"), (2, "rw-2"), (3, "rw-3"), (4, "rw-4")]
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


async def test_reordered_and_new_lines_get_their_own_answers(server: Server, path: Path) -> None:
    await run(server, path, [line("A", id="a", source="x"), line("B"), line("C")])
    await run(server, path, [line("N"), line("C", id="c"), b"\n", line("A", id="new", label=1), line("B")])
    assert server.sent == ["N"]
    assert ids(path) == [(1, "rw-4"), (2, "rw-3"), (4, "rw-1"), (5, "rw-2")]
    # Id and columns are those of the present input.
    assert [(row["id"], row.get("meta")) for row in rows(path)] == [
        (None, None),
        ("c", None),
        ("new", {"label": 1}),
        (None, None),
    ]


async def test_an_edited_line_is_scored_again_and_its_old_answer_moved(server: Server, path: Path) -> None:
    await run(server, path, LINES)
    await run(server, path, [LINES[0], line("edited"), *LINES[2:]])
    assert server.sent == ["edited"]
    assert ids(path) == [(1, "rw-1"), (2, "rw-5"), (3, "rw-3"), (4, "rw-4")]
    assert ids(path.with_name("out.jsonl.dropped")) == [(2, "rw-2")]


async def test_errors_are_done_again(server: Server, path: Path) -> None:
    server.broken = {"B", "C"}
    await run(server, path, [*LINES, b"no JSON\n"])
    server.broken = {"C"}
    progress = await run(server, path, [*LINES, line("mended")])
    assert server.sent == ["B", "C", "mended"]
    assert (progress.kept, progress.done, progress.failed) == (2, 2, 1)
    assert ids(path) == [(1, "rw-1"), (2, "rw-3"), (3, None), (4, "rw-2"), (5, "rw-4")]


async def test_equal_lines_have_answers_of_their_own(server: Server, path: Path) -> None:
    await run(server, path, [line("A"), line("A")])
    await run(server, path, [line("A"), line("A"), line("A")])
    assert server.sent == ["A"]
    assert ids(path) == [(1, "rw-1"), (2, "rw-2"), (3, "rw-3")]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"k": 8, "seed": 1}, "was written with k = 4; this run has k = 8"),
        ({"k": 4}, "was written with seed = 1; this run has no seed"),
        ({"k": 4, "seed": 1, "stop": {"rule": "fixed"}}, "was written with no stop; this run has stop = "),
    ],
)
async def test_other_options_are_refused(server: Server, path: Path, options: dict[str, Any], complaint: str) -> None:
    await run(server, path, LINES[:2], k=4, seed=1)
    before = content(path)
    with pytest.raises(Mixture, match=complaint):
        await run(server, path, LINES, **options)
    assert content(path) == before


async def test_another_judge_is_refused_before_anything_is_sent(server: Server, path: Path) -> None:
    await run(server, path, LINES[:2])
    before = content(path)
    server.model = "another"
    with pytest.raises(Mixture, match="judge judge, and the server now runs another"):
        await run(server, path, LINES)
    assert server.sent == []
    assert content(path) == before
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


async def test_a_complete_file_needs_no_server(server: Server, path: Path) -> None:
    await run(server, path, LINES)
    server.lost = set("ABCD")
    server.model = "another"
    assert (await run(server, path, LINES)).kept == 4


async def test_a_file_that_several_judges_wrote_is_refused(server: Server, path: Path) -> None:
    await run(server, path, LINES)
    replace_once(path, b'"model": "judge"', b'"model": "other"')
    with pytest.raises(Mixture, match=r"several judges \(judge, other\)"):
        read_earlier(path, {})


async def test_answers_to_other_requests_only_are_refused(server: Server, path: Path) -> None:
    await run(server, path, LINES)
    earlier = read_earlier(path, {})
    refuse_other_requests(earlier, keys([b"\n", b"no JSON\n", line("X"), LINES[3]], {}, scored_key))
    with pytest.raises(Mixture, match="holds 4 answers, all to other requests"):
        refuse_other_requests(earlier, keys([line("X"), b"{}\n"], {}, scored_key))


async def test_a_full_disk_leaves_all_answers(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(server, path, LINES[:2])

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        await run(server, path, LINES)
    monkeypatch.undo()
    assert ids(path) == [(1, "rw-1"), (2, "rw-2"), (3, "rw-3"), (4, "rw-4")]
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]


async def test_a_link_stays_a_link(server: Server, path: Path) -> None:
    link = path.with_name("link.jsonl")
    append(path, b"")
    link.symlink_to(path)
    await run(server, link, LINES[:2])
    await run(server, link, LINES)
    assert link.is_symlink()
    assert len(rows(path)) == 4


OK = result_row(Labels(1, "é\n", "key"), {"model": "judge"})
BAD = error_row(Labels(12, "é\n"), APIError(400, "no", "no"))


def written(path: Path, parts: Sequence[bytes]) -> bytes:
    path.write_bytes(b"".join(parts))
    return path.read_bytes()


class TestReadEarlier:
    def test_an_absent_or_empty_file_has_no_answers(self, path: Path) -> None:
        assert not read_earlier(path, {})
        path.touch()
        assert not read_earlier(path, {"k": 3})

    def test_errors_are_no_answers_and_may_have_other_options(self, path: Path) -> None:
        before = written(path, [BAD, b"\n", BAD])
        assert not read_earlier(path, {"k": 3})
        assert path.read_bytes() == before

    def test_an_incomplete_last_row_is_cut_off(self, path: Path) -> None:
        for cut in range(1, len(OK)):
            written(path, [OK, BAD, OK[:cut]])
            assert len(read_earlier(path, {})) == 1
            assert path.read_bytes() == OK + BAD

    @pytest.mark.parametrize(
        "content",
        [
            b'{"query": "q", "responses": ["a"]}\n',
            b'{"query": "q", "responses": ["a"]}',
            b"dear diary",
            OK + b"dear diary",
            OK + b'{"line": true}\n',
            b'{"line": , "id": 3}\n',
            b'{"line": 7, \n',
        ],
    )
    def test_any_other_file_is_refused_unchanged(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(NotOurFile, match=r"out\.jsonl was not written by this command"):
            read_earlier(path, {})
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        "row",
        [b'{"line": 1, "id": null, "rewards": [3.0]}\n', b'{"line": 1, "id": null, "error": {"code": "bad_line"}}\n'],
    )
    def test_a_file_of_an_earlier_version_is_refused_with_what_to_do(self, path: Path, row: bytes) -> None:
        path.write_bytes(row)
        with pytest.raises(NotOurFile, match=r"earlier version of grm.*choose another output file.*tail -n \+M"):
            read_earlier(path, {})
        assert path.read_bytes() == row
