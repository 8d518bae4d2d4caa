"""The current request, so that every log line can name it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

Fact = str | int | float | bool


@dataclass(slots=True)
class RequestContext:
    """What is known of a request so far. It holds no text that the client sent, except an id that passed the check."""

    request_id: str
    tenant: str | None = None
    """None until the caller is known."""
    trace_id: str | None = None
    judgements: dict[str, dict[str, Fact]] = field(default_factory=dict)
    """Judgement id -> its facts for the access line."""
    error: str | None = None
    """Code of the last error, even if the client got a reward all the same."""

    def names(self) -> dict[str, Fact]:
        """What identifies the request in a log line."""
        names = {"request_id": self.request_id, "tenant": self.tenant, "trace_id": self.trace_id}
        return {name: value for name, value in names.items() if value is not None}

    def outcome(self) -> dict[str, Fact]:
        """The result, for the access line. Several judgements are summed up, with the largest `k_used`."""
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
"""Tasks inherit it from the request that starts them. A group is judged in a task of the request that closed it."""


def note_tenant(name: str) -> None:
    """Record whose request this is."""
    if (context := current_request.get()) is not None:
        context.tenant = name


def note_judgement(judgement_id: str, **facts: Fact) -> None:
    """Record a judgement that the client gets, for the access line. Later facts are added to earlier ones."""
    if (context := current_request.get()) is not None:
        context.judgements.setdefault(judgement_id, {}).update(facts)


def note_error(code: str) -> None:
    """Record an error, for the access line."""
    if (context := current_request.get()) is not None:
        context.error = code
