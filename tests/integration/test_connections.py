"""Hostile connections to a real server, before any key is checked."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.judging import PAIR
from tests.integration.processes import Process, process

HEAD = b"POST /v1/rewards HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    settings = ("http.head_timeout_s=0.75", "http.body_timeout_s=0.75", "judge.k=2")
    with process(tmp_path_factory.mktemp("cache"), 0, *settings) as one:
        yield one, one.ready()


@pytest.fixture
def connection(server: tuple[Process, str]) -> Iterator[socket.socket]:
    address = urlsplit(server[1])
    with socket.create_connection((address.hostname, address.port), timeout=20) as one:
        yield one


def resident_mib(one: Process) -> float:
    status = Path(f"/proc/{one.popen.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def closed(connection: socket.socket) -> bytes:
    """All bytes received until the server closes the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"X: ", b"x" * MIB),
        (HEAD, b"X: y\r\n" * 100_000),
        (b"POST /", b"x" * MIB),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", b"X: y\r\n" * 100_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * MIB),
    ],
    ids=["a header", "headers", "a path", "trailers", "a chunk's extension"],
)
def test_endless_headers_take_no_memory(
    server: tuple[Process, str], connection: socket.socket, start: bytes, piece: bytes
) -> None:
    before_mib = resident_mib(server[0])
    connection.sendall(start)
    with pytest.raises(OSError, match=r"reset|Broken pipe|timed out"):
        connection.sendall(piece * (200 * MIB // len(piece)))
    assert resident_mib(server[0]) - before_mib < 40
    assert httpx.get(f"{server[1]}/health/ready").status_code == 200


@pytest.mark.parametrize("start", [b"", b"POST /v1", HEAD], ids=["nothing", "half a line", "half the headers"])
def test_half_a_request_times_out(connection: socket.socket, start: bytes) -> None:
    began_s = time.monotonic()
    connection.sendall(start)
    assert closed(connection) == b""
    assert time.monotonic() - began_s > 0.5


def test_half_a_second_request_times_out(connection: socket.socket) -> None:
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    # Head and body may arrive separately.
    answered = b""
    while not answered.endswith(b"}"):
        answered += connection.recv(65536)
    assert b" 200 " in answered
    connection.sendall(HEAD)
    assert closed(connection) == b""


def test_a_slow_body_gets_408_and_the_connection_is_closed(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert b" 408 " in closed(connection).split(b"\r\n")[0]


def test_a_refused_body_is_not_read_for_ever(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")

    def send_for_ten_seconds() -> None:
        for _ in range(200):
            connection.sendall(b"x" * 1000)
            time.sleep(0.05)

    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        send_for_ten_seconds()


def test_a_connection_serves_one_request_after_another(connection: socket.socket) -> None:
    body = json.dumps(PAIR | {"k": 2}).encode()
    for pause_s in (0.0, 1.0, 0.0):
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0]
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(rest) < length:
            rest += connection.recv(65536)
        time.sleep(pause_s)
    # Two requests at once, the second one in pieces.
    both = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + HEAD
    connection.sendall(both)
    time.sleep(0.2)
    connection.sendall(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert closed(connection).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\x00\x00\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"X\x00Y: z\r\n\r\n",
    ],
)
def test_malformed_http_is_refused(server: tuple[Process, str], connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    answer = closed(connection)
    assert not answer or answer.split(b" ")[1][:1] == b"4"
    assert httpx.get(f"{server[1]}/health/ready").status_code == 200


def half_closed(address: str, request: bytes) -> bytes:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return closed(connection)


def in_flight(address: str) -> float:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("grm_requests_in_flight")).split()[1])


BODY = json.dumps(PAIR | {"k": 2}).encode()
POST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize("accept", [b"application/json", b"text/event-stream"])
def test_a_client_that_half_closes_after_its_request_is_answered(tmp_path: Path, accept: bytes) -> None:
    request = POST.replace(b"Host", b"Accept: " + accept + b"\r\nHost")
    with process(tmp_path, 0.6, "judge.k=2") as slow:
        address = slow.ready()
        for sent, count in ((request, 1), (request + request, 2)):
            answer = half_closed(address, sent)
            while answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
                answer = answer.partition(b"\r\n\r\n")[2]
            assert answer.count(b"HTTP/1.1 200 OK") == count
            assert answer.count(b'"rewards"') >= count
            first = answer.partition(b" 200 OK")[2].partition(b'"rewards"')[0]
            assert b"100 Continue" not in first
        assert b" 200 OK" in half_closed(address, request.replace(b"HTTP/1.1", b"HTTP/1.0"))


def test_half_a_request_of_a_client_that_half_closes_ends_the_connection(server: tuple[Process, str]) -> None:
    assert half_closed(server[1], POST[:-5]) == half_closed(server[1], POST[:60]) == b""


def test_a_client_that_is_gone_is_noticed(tmp_path: Path) -> None:
    with process(tmp_path, 60, "judge.k=2") as slow:
        address = urlsplit(slow.ready())
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(POST)
            until_s = time.monotonic() + 10
            while in_flight(address.geturl()) < 1:
                assert time.monotonic() < until_s
        # Well below the 60 s of a sample.
        while in_flight(address.geturl()) > 0:
            assert time.monotonic() < until_s + 5
            time.sleep(0.1)
