"""Whether a running server answers, and with rewards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import httpx

from grm_client import GRMClient, GRMClientError
from grm_server.cli.doctor.finding import Finding, fail, ok, warn

_QUESTION = ("What is 2 + 2?", ("4", "5"))
_SKEW_S = 5.0


def check_server(url: str, api_key: str | None, transport: httpx.BaseTransport | None = None) -> Iterator[Finding]:
    """From the door inwards; ends where it is closed. `transport` replaces the network in tests."""
    with httpx.Client(base_url=url, timeout=10, transport=transport) as http:
        try:
            live = http.get("/health/live")
        except httpx.RequestError as error:
            yield fail("live", f"nobody answers at {url}: {error}", "is it started, and is this its address?")
            return
        if live.status_code != 200:
            yield fail("live", f"{url} answers {live.status_code}", "is this a GRM Server, or a proxy before it?")
            return
        yield ok("live", f"{url} answers")
        yield from _clock(live.headers.get("Date"))
        yield from _version(http)
        ready = http.get("/health/ready")
        if ready.status_code != 200:
            yield fail("ready", f"not ready: {_reason(ready)}", "its log says more; after a start, wait")
            return
        yield ok("ready", "it takes requests")
    yield _rewards(url, api_key, transport)


def _version(http: httpx.Client) -> Iterator[Finding]:
    ours = version("grm-server")
    try:
        theirs = http.get("/openapi.json").json()["info"]["version"]
    except (httpx.RequestError, ValueError, KeyError, TypeError):
        yield warn("version", f"this is {ours}; the server does not say its own", "compare `pip show grm-server` there")
        return
    if theirs != ours:
        yield warn("version", f"the server is {theirs}, this is {ours}", f"pip install grm-server=={theirs}")
    else:
        yield ok("version", f"{ours} here and there")


def _clock(date: str | None) -> Iterator[Finding]:
    if date is None:
        return
    skew_s = parsedate_to_datetime(date).timestamp() - time.time()
    if abs(skew_s) > _SKEW_S:
        yield warn("clock", f"the server's clock differs by {skew_s:.0f} s", "logs and traces will not match: use NTP")


def _rewards(url: str, api_key: str | None, transport: httpx.BaseTransport | None) -> Finding:
    query, responses = _QUESTION
    began_s = time.monotonic()
    try:
        with GRMClient(url, api_key=api_key, max_retries=0, timeout_s=300, transport=transport) as client:
            answer = client.rewards(query, responses, k=2, stop={"rule": "fixed"})
    except GRMClientError as error:
        return fail("rewards", f"a small request failed: {error}", "its log says more (docs/tracing-and-logs.md)")
    what = f"a small request took {time.monotonic() - began_s:.1f} s; judge {answer.model}"
    if answer.failures:
        lost = ", ".join(f"{count} {reason}" for reason, count in answer.failures.items())
        return warn("rewards", f"{what}; samples without scores: {lost}", "more of them: the judge does not fit")
    return ok("rewards", what)


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json().get("reason") or response.status_code)
    except (ValueError, AttributeError):
        return str(response.status_code)
