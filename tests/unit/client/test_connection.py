"""How the client reaches a server: URLs, keys, proxies, certificates, over real sockets where it matters."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_client import APIError, AsyncGRMClient, ConnectionFailed, GRMClient
from grm_client.connection import clean_api_key, http_options, is_loopback, proxy_for, server_url, through_proxy

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def answering(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that sends `answer` to every request."""
    with socket.create_server(("0.0.0.0", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(5)
                try:
                    with context.wrap_socket(connection, server_side=True) if context else connection as each:
                        each.recv(65536)
                        each.sendall(answer)
                except OSError:
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        try:
            yield port
        finally:
            listener.shutdown(socket.SHUT_RDWR)


READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def failure(url: str, **options: Any) -> str:
    """The message of the error when the server at `url` is asked for rewards, which both clients share."""
    with GRMClient(url, max_retries=0, **options) as client, pytest.raises(ConnectionFailed) as caught:
        client.rewards("q", ["a"])
    return str(caught.value)


async def asynchronous_failure(url: str) -> str:
    async with AsyncGRMClient(url, max_retries=0) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.rewards("q", ["a"])
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000/prefix", "http://localhost:8000/prefix"),
        ("judge", "http://judge"),
        ("[::1]:8000", "http://[::1]:8000"),
        (" https://judge/ \n", "https://judge/"),
        ("HTTP://judge", "http://judge"),
    ],
)
def test_a_url_without_a_scheme_means_http(given: str, url: str) -> None:
    assert str(server_url(given)) == url
    with GRMClient(given) as client:
        assert client.base_url == given


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "http://",
        "ftp://judge",
        "http://judge:99999",
        "judge:99999",
        "http://judge:x",
        "http://[::1",
        "http://judge:0",
    ],
)
def test_an_invalid_url_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError, match="the server's URL") as caught:
        GRMClient(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["grm-secret\n", "  grm-secret", "grm-secret\r\n\t "])
def test_white_space_around_a_key_is_removed(key: str) -> None:
    sent: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["authorization"])
        return httpx.Response(200)

    with GRMClient(api_key=key, transport=httpx.MockTransport(serve)) as client:
        assert client.ready()
    assert sent == ["Bearer grm-secret"]


@pytest.mark.parametrize("key", ["", " \n", None])
def test_an_empty_key_is_no_key(key: str | None) -> None:
    assert clean_api_key(key) is None
    assert "authorization" not in http_options("judge", key, 1)["headers"]


@pytest.mark.parametrize(
    "key", ["grm-secr\u00e9t", "grm\nsecret", "grm secret", "grm-secret\u200b", "\udc97secret", "“secret”"]
)
def test_a_key_that_no_header_can_carry_is_never_printed(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        AsyncGRMClient(api_key=key)
    assert "secr" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "127.0.0.1", "127.0.1.1", "127.255.0.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"],
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["judge", "localhost.example", "10.0.0.1", "128.0.0.1", "fe80::1", "example.com"])
def test_other_hosts(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_proxy_is_used_for_loopback(monkeypatch: pytest.MonkeyPatch, proxy: str, variable: str) -> None:
    monkeypatch.setenv(variable.lower(), proxy)
    monkeypatch.setenv(variable, proxy)
    with answering(READY) as port:
        for host in ("127.0.0.1", "127.0.1.1", "0.0.0.0", "localhost"):
            with GRMClient(f"http://{host}:{port}", max_retries=0) as client:
                assert client.ready(), host


async def test_the_asynchronous_client_uses_no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with answering(READY) as port:
        async with AsyncGRMClient(f"http://127.0.0.1:{port}", max_retries=0) as client:
            assert await client.ready()


async def test_a_dead_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@{proxy}")
    for message in (failure("http://judge:8000"), await asynchronous_failure("http://judge:8000")):
        assert f"http://judge:8000 through the proxy http://{proxy} (HTTP_PROXY)" in message
        assert "NO_PROXY" in message
        assert "secret" not in message


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop") as port:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        assert "403 Forbidden" in failure("https://judge")
        with (
            GRMClient("http://judge", max_retries=0) as client,
            pytest.raises(APIError, match=r"proxy http://127.*ALL_PROXY"),
        ):
            client.rewards("q", ["a"])


def test_only_the_proxy_that_applies_must_be_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    GRMClient("http://judge").close()
    monkeypatch.setattr("grm_client.connection.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"proxy socks5://127.0.0.1:9 \(ALL_PROXY\) needs the package socksio.*NO_PROXY"
    ) as caught:
        GRMClient("https://judge")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("ALL_PROXY", "nonsense://secret")
    with pytest.raises(ValueError, match="ALL_PROXY does not hold a valid proxy URL"):
        GRMClient("https://judge")


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("judge", "http://judge:8000", True),
        (".example.com", "http://judge.example.com", True),
        ("example.com:8000", "http://judge.example.com:8000", True),
        ("other, *", "http://judge", True),
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("fd00::/8", "http://[fd00::1]", True),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("other", "http://judge", False),
    ],
)
def test_no_proxy_holds_names_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(httpx.URL(url)) is None) == direct
    assert through_proxy(httpx.URL(url)) == ("" if direct else " through the proxy http://proxy:3128 (HTTP_PROXY)")


async def test_an_unknown_host_is_named() -> None:
    for message in (failure("http://judge.invalid:8000"), await asynchronous_failure("http://judge.invalid:8000")):
        assert "the host name judge.invalid" in message
        assert "does not resolve" in message


async def test_no_server_at_all() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for message in (failure(url), await asynchronous_failure(url)):
        assert message == f"no server at {url}; start one with `grm serve`"


async def test_tls_to_a_server_without_tls() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port:
        for message in (failure(f"https://127.0.0.1:{port}"), await asynchronous_failure(f"https://127.0.0.1:{port}")):
            assert "does not answer in TLS" in message
            assert "use http://" in message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by no CA that anyone knows."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=judge"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run([*command, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


async def test_a_private_ca(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with answering(READY, context) as port:
        url = f"https://127.0.0.1:{port}"
        for message in (failure(url), await asynchronous_failure(url)):
            assert f"the certificate of {url} is not trusted: self-signed certificate" in message
            assert "SSL_CERT_FILE" in message
        assert "use https://" in failure(f"http://127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        with GRMClient(url, max_retries=0) as client:
            assert client.ready()


def test_a_failure_of_tls_is_not_retried(sleeps: list[float]) -> None:
    with (
        answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port,
        GRMClient(f"https://127.0.0.1:{port}") as client,
        pytest.raises(ConnectionFailed),
    ):
        client.rewards("q", ["a"])
    assert sleeps == []
