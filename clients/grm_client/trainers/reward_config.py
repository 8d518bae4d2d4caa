"""How a trainer's reward function reaches its judge. Trainers import reward functions by name and pass no arguments of
ours, so that the environment of the training process is where this is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grm_client.client import DEFAULT_URL, AsyncGRMClient
from grm_client.errors import APIError, GRMClientError
from grm_client.transport import TIMEOUT_S

NEUTRAL = 5.5
"""The middle of the judge's scale. Given to all members of a group it says nothing: their advantages are 0."""

# The server on the same machine reads GRM_... and refuses names it does not know, but leaves these to the client.
PREFIX = "GRM_CLIENT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Each field can stand in the environment, in capitals after `GRM_CLIENT_`: `GRM_CLIENT_MAX_RETRIES=8`."""

    url: str = DEFAULT_URL
    """The server."""
    api_key: str | None = None
    """Sent as a bearer token."""
    k: int | None = None
    """Readings of each response, at most. None: the server's choice."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else a request says, see `RewardOptions`; JSON in the environment:
    `{"stop": {"rule": "precision", "se": 0.4}}`. Where the server gathers the groups, what the URL of its
    route may say, such as `{"idle_s": 10}`; of `stop` the rule alone."""
    concurrency: int = 64
    """Groups judged at once for one process of the trainer."""
    timeout_s: float = TIMEOUT_S
    """Of one attempt. The server's own limit is shorter and answers with a reason."""
    max_retries: int = 16
    """Attempts after one that met an absent or busy server. With the pauses between them, 16 are two to four minutes:
    a server that is restarted meanwhile delays the step and does not end the run."""

    failure_reward: float | None = NEUTRAL
    """What a sample gets that was not judged, in trainers that need a number: all but TRL's GRPO, RLOO and AsyncGRPO.
    None, in the environment `raise`: the error is raised, and ends the run of most of them."""

    def client(self) -> AsyncGRMClient:
        """A client whose connections belong to the event loop that uses it first. Where a trainer may call from another
        loop the next time, as ms-swift does, make one for each call."""
        return AsyncGRMClient(self.url, api_key=self.api_key, timeout_s=self.timeout_s, max_retries=self.max_retries)

    def request_options(self) -> dict[str, Any]:
        """What every request of a group says."""
        return {**self.options, **({} if self.k is None else {"k": self.k})}


def config_from(environment: Mapping[str, str]) -> RewardConfig:
    """Raises ValueError that names the variable."""
    return RewardConfig(
        **{
            name: _read(PREFIX + name.upper(), environment[PREFIX + name.upper()], parse)
            for name, parse in _PARSERS.items()
            if environment.get(PREFIX + name.upper())
        }
    )


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


_PARSERS = {
    "url": str,
    "api_key": str,
    "k": int,
    "options": _object,
    "concurrency": int,
    "timeout_s": float,
    "max_retries": int,
    "failure_reward": lambda text: None if text == "raise" else float(text),
}


def _read(variable: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{variable} = {text!r}: {error}") from None


_REFUSED = frozenset({401, 403, 404, 405})
_WRITTEN = frozenset({"query", "responses", "prompt", "response", "label"})
"""Fields that hold what the data set or the policy wrote, which can make the server refuse one request."""


def is_set_up(error: GRMClientError) -> bool:
    """Whether the server refuses what all requests have in common, such as the key or an option: no later step of the
    training would fare better."""
    if not isinstance(error, APIError):
        return False
    own = (error.param or "").split(".")[0] in _WRITTEN
    return error.status in _REFUSED or (error.status == 422 and (not own or error.code == "limit_exceeded"))
