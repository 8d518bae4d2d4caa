"""Columns of a file of requests: which are fields of a request, and what the names of other formats mean. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from grm_client.options import RewardOptions

REQUEST_FIELDS = frozenset({"query", "responses", *RewardOptions.__annotations__})
"""Columns that are sent. A request field that this client does not know is carried along as any other column."""

LABEL = "label"
"""The column that `grm collect` and `grm calibrate` read. It is never sent."""

_QUERY_NAMES = ("prompt", "question", "instruction", "messages", "conversation", "input")
_RESPONSES_NAMES = ("completions", "answers", "candidates", "outputs", "documents")
_RESPONSE_NAMES = ("response", "completion", "answer", "output")
_PAIR = ("chosen", "rejected")


def what_is_meant(missing: Collection[str], columns: Collection[str]) -> str:
    """What a row of another shape must have instead of its columns. Completes "line 3 is ..."."""
    advice: list[str] = []
    if "query" in missing and (name := _first(_QUERY_NAMES, columns)):
        advice.append(f"rename `{name}` to `query`")
    if "responses" in missing:
        if all(name in columns for name in _PAIR):
            advice.append('put `chosen` and `rejected` into a list: "responses": [chosen, rejected], "label": 0')
        elif name := _first(_RESPONSES_NAMES, columns):
            advice.append(f"rename `{name}` to `responses`, a list of strings")
        elif name := _first(_RESPONSE_NAMES, columns):
            advice.append(f'put `{name}` into a list: "responses": [{name}]')
    names = " and ".join(f"`{name}`" for name in missing)
    return f"without {names}; {' and '.join(advice) or 'see the format in docs/api.md'}"


def _first(names: Collection[str], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def carried_along(columns: Collection[str]) -> str:
    """A message about columns that are not sent; empty if there are none. A misspelt field must not go unnoticed."""
    names = []
    for name in sorted(set(columns) - {LABEL}):
        meant = get_close_matches(name, sorted(REQUEST_FIELDS), 1, cutoff=0.8)
        names.append(f"`{name}`" + (f" (do you mean `{meant[0]}`?)" if meant else ""))
    return f"not sent to the judge, copied to `meta` of the output: {', '.join(names)}" if names else ""
