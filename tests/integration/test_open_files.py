"""More connections than the limit of open files has room for, to a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from grm_client import AsyncGRMClient
from grm_server.app.listener import room_for
from tests.integration.judging import PAIR
from tests.integration.processes import Process, process
from tests.integration.trainers import all_at_once

OPEN_FILES = 128
ROOM = room_for(OPEN_FILES)
BODY = PAIR | {"k": 2}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path, 0.05, "judge.k=2", "http.head_timeout_s=60", open_files=OPEN_FILES) as one:
        yield one


def warnings(server: Process) -> list[str]:
    return [line for line in server.log().splitlines() if "connections are open" in line]


def connect(url: str, count: int, stack: ExitStack) -> list[socket.socket]:
    address = urlsplit(url)
    opened = (socket.create_connection((address.hostname, address.port), timeout=20) for _ in range(count))
    return [stack.enter_context(one) for one in opened]


def test_a_post_on_one_connection_too_many_is_refused_and_logged_once(server: Process) -> None:
    url = server.ready()
    with ExitStack() as stack:
        connect(url, ROOM.served - 1, stack)
        assert httpx.post(f"{url}/v1/rewards", json=BODY).status_code == 200
        assert not warnings(server)
        last = connect(url, 1, stack)[0]
        for _ in range(3):
            # A body of several reads: the answer must not be lost in a reset.
            refused = httpx.post(f"{url}/v1/rewards", json=BODY | {"responses": ["a" * 500_000]})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "connections_too_many")
            assert refused.json()["error"]["retryable"]
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        ready = httpx.get(f"{url}/health/ready")
        assert (ready.status_code, ready.headers["connection"]) == (200, "close")
        assert 'grm_door_refusals_total{code="connections_too_many"} 3.0' in httpx.get(f"{url}/metrics").text
        (line,) = warnings(server)
        assert f"The limit of open files ({OPEN_FILES}) has room for {ROOM.served}" in line
        assert "ulimit -n" in line
        last.close()
        assert httpx.post(f"{url}/v1/rewards", json=BODY).status_code == 200


def test_further_connections_wait_until_there_is_room(server: Process) -> None:
    url = server.ready()
    with ExitStack() as stack:
        held = connect(url, ROOM.held, stack)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{url}/health/live", timeout=0.5)
        for one in held[:2]:
            one.close()
        assert httpx.get(f"{url}/health/live", timeout=10).status_code == 200
        assert len(warnings(server)) == 1


async def test_a_burst_is_answered_and_clients_that_retry_get_all_rewards(server: Process) -> None:
    url, count = server.ready(), ROOM.held + 60
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as client:
        answers = await all_at_once([client.post(f"{url}/v1/rewards", json=BODY) for _ in range(count)])
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= ROOM.served
    assert len(warnings(server)) == 1
    async with AsyncGRMClient(url) as retrying:
        calls = [retrying.rewards(f"Why {i}?", ["a", "b"], k=2) for i in range(count)]
        assert len(await all_at_once(calls)) == count
