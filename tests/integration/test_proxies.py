"""The client behind a proxy that fails once, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from grm_client import APIError, AsyncGRMClient, GRMClient
from grm_client.slime import grm_group_rm
from grm_client.swift import GRMReward
from grm_client.trainers.reward_config import NEUTRAL
from grm_client.trl import grm_reward, grm_reward_sync
from grm_client.verl import compute_score

PAGE = ("text/html", "<html><h1>Bad Gateway</h1></html>")


def own_error(code: str) -> tuple[str, str]:
    return "application/json", json.dumps({"error": {"code": code, "message": "m"}})


@contextmanager
def proxy(server: str, status: int, answer: tuple[str, str]) -> Iterator[tuple[str, list[int]]]:
    """Address of a proxy that answers the first POST by itself, and the statuses of all answers to POSTs."""
    statuses: list[int] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                first = not statuses
                if first:
                    statuses.append(status)
            if first:
                return self._answer(status, answer[0], answer[1].encode())
            headers = {name: self.headers[name] for name in ("Content-Type", "Accept")}
            passed_on = httpx.post(f"{server}{self.path}", content=content, headers=headers, timeout=30)
            statuses.append(passed_on.status_code)
            return self._answer(passed_on.status_code, passed_on.headers["content-type"], passed_on.content)

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests print no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        serving = threading.Thread(target=listening.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", statuses
        finally:
            listening.shutdown()
            serving.join()


@dataclass
class Sample:
    """The fields of slime's `Sample` that we read."""

    prompt: Any
    response: str
    label: str | None = None
    group_index: int | None = None
    remove_sample: bool = False


def by_client(url: str) -> list[Any]:
    with GRMClient(url) as client:
        return list(client.rewards("p", ["a"], k=2).rewards)


async def by_async_client(url: str) -> list[Any]:
    async with AsyncGRMClient(url) as client:
        return list((await client.rewards("p", ["a"], k=2)).rewards)


def by_stream(url: str) -> list[Any]:
    with GRMClient(url) as client:
        last = list(client.stream("p", ["a"], k=2))[-1]
    assert last.rewards is not None
    return list(last.rewards.rewards)


def by_score_many(url: str) -> list[Any]:
    with GRMClient(url) as client:
        (result,) = client.score_many([{"query": "p", "responses": ["a"], "k": 2}])
    if isinstance(result, Exception):
        raise result
    return list(result.rewards)


def by_trl(_: str) -> list[Any]:
    return list(asyncio.run(grm_reward(prompts=["p"], completions=["a"])))


def by_trl_sync(_: str) -> list[Any]:
    return list(grm_reward_sync(prompts=["p"], completions=["a"]))


def by_swift(_: str) -> list[Any]:
    messages = [[{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]]
    return list(asyncio.run(GRMReward(args=object())(["a"], messages=messages, prompt_id=["0"], request_id=["x"])))


def by_slime(_: str) -> list[Any]:
    sample = Sample("p", "a", None, 1)
    reward = asyncio.run(grm_group_rm(None, sample))
    return [None if sample.remove_sample else reward]


def by_verl(_: str) -> list[Any]:
    score = asyncio.run(compute_score("data", "a", None, {"question": "p"}, n=1))
    return [None if score["grm_failed"] else score["score"]]


def run_async(call: Callable[[str], Any], url: str) -> list[Any]:
    return list(asyncio.run(call(url)))


CLIENTS: dict[str, Callable[[str], list[Any]]] = {
    "client": by_client,
    "async client": partial(run_async, by_async_client),
    "stream": by_stream,
    "score_many": by_score_many,
}
FUNCTIONS: dict[str, Callable[[str], list[Any]]] = {
    "trl": by_trl,
    "trl sync": by_trl_sync,
    "swift": by_swift,
    "slime": by_slime,
    "verl": by_verl,
}


@pytest.fixture(autouse=True)
def options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRM_CLIENT_OPTIONS", '{"k": 2}')


@pytest.mark.parametrize(
    ("name", "status"), [*((name, 502) for name in CLIENTS | FUNCTIONS), ("client", 504), ("async client", 504)]
)
def test_a_proxys_page_costs_one_retry(url: str, monkeypatch: pytest.MonkeyPatch, name: str, status: int) -> None:
    with proxy(url, status, PAGE) as (address, statuses):
        monkeypatch.setenv("GRM_CLIENT_URL", address)
        (reward,) = (CLIENTS | FUNCTIONS)[name](address)
    assert isinstance(reward, float)
    assert statuses == [status, 200]


@pytest.mark.parametrize("name", CLIENTS)
def test_the_servers_own_503_is_retried(url: str, name: str) -> None:
    with proxy(url, 503, own_error("connections_too_many")) as (address, statuses):
        CLIENTS[name](address)
    assert statuses == [503, 200]


@pytest.mark.parametrize(("status", "code"), [(502, "too_few_votes"), (504, "deadline_exceeded")])
@pytest.mark.parametrize("name", CLIENTS)
def test_the_servers_own_502_and_504_are_not_retried(url: str, name: str, status: int, code: str) -> None:
    with proxy(url, status, own_error(code)) as (address, statuses):
        with pytest.raises(APIError) as caught:
            CLIENTS[name](address)
        assert (caught.value.status, caught.value.code) == (status, code)
    assert statuses == [status]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_servers_own_502_costs_one_reward_and_no_retry(
    url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with proxy(url, 502, own_error("too_few_votes")) as (address, statuses):
        monkeypatch.setenv("GRM_CLIENT_URL", address)
        (reward,) = FUNCTIONS[name](address)
    assert reward in (None, NEUTRAL)
    assert statuses == [502]
