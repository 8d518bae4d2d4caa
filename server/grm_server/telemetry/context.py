"""The request that this code runs for, so that every line of the log can name it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

Fact = str | int | float | bool


@dataclass(slots=True)
class RequestContext:
    """What is known of a request while it is served. Never a text of its caller's, but for the id that was accepted."""

    request_id: str
    state: Mapping[str, object] = field(default_factory=dict)
    """Of the web framework; `tenant` is in it once the caller is known."""
    trace_id: str | None = None
    judgements: dict[str, dict[str, Fact]] = field(default_factory=dict)
    """Judgement id -> what it came to."""
    error: str | None = None
    """Code of the last error, also where the caller got an answer all the same."""

    def names(self) -> dict[str, Fact]:
        """What tells this request from others."""
        tenant = self.state.get("tenant")
        known = {"request_id": self.request_id, "tenant": tenant, "trace_id": self.trace_id}
        return {name: value for name, value in known.items() if isinstance(value, str)}

    def outcome(self) -> dict[str, Fact]:
        """What became of it. Of several judgements: their number and sums, and the most readings of one."""
        facts: dict[str, Fact] = {} if self.error is None else {"error": self.error}
        if len(self.judgements) == 1:
            return facts | {"judgement": next(iter(self.judgements)), **next(iter(self.judgements.values()))}
        if self.judgements:
            facts["judgements"] = len(self.judgements)
            for name, total in (("n", sum), ("k_used", max), ("samples", sum)):
                values = [value for one in self.judgements.values() if isinstance(value := one.get(name), int)]
                if values:
                    facts[name] = total(values)
        return facts


current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)
"""Tasks that a request starts inherit it. A group is judged in the task of the request that closed it."""


def note_judgement(judgement_id: str, **facts: Fact) -> None:
    """Remember what this request was told, for the line at its end."""
    if (context := current_request.get()) is not None:
        context.judgements.setdefault(judgement_id, {}).update(facts)


def note_error(code: str) -> None:
    """Remember what went wrong, for the line at its end."""
    if (context := current_request.get()) is not None:
        context.error = code
