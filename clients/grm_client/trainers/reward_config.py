"""Configuration of a trainer's reward function, read from the environment of the training process: trainers import
reward functions by name and cannot pass our arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from grm_client.async_client import AsyncGRMClient
from grm_client.errors import APIError, GRMClientError
from grm_client.transport import DEFAULT_URL, TIMEOUT_S

NEUTRAL = 5.5
"""Middle of the judge's scale. Given to all members of a group it is neutral: their advantages are 0."""

# A server on the same machine reads GRM_... and refuses unknown names, except those with this prefix.
PREFIX = "GRM_CLIENT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Environment variables have the field's name in capitals after `GRM_CLIENT_`: `GRM_CLIENT_MAX_RETRIES=8`."""

    url: str = DEFAULT_URL
    """The server's address."""
    api_key: str | None = None
    """Sent as a bearer token."""
    k: int | None = None
    """Maximum number of samples for each response. None: the server's default."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Other request fields, see `RewardOptions`; JSON in the environment:
    `{"stop": {"rule": "precision", "se": 0.4}}`. If the server gathers the groups, the options of its URL, such as
    `{"idle_s": 10}`; only the rule of `stop` is then sent."""
    concurrency: int = 64
    """Groups in flight at once, for one process of the trainer."""
    timeout_s: float = TIMEOUT_S
    """Timeout of one attempt. The server's own limit is shorter, and its answer says why it stopped."""
    max_retries: int = 16
    """Attempts after the first one, when the server is busy or cannot be reached. With back-off, 16 retries take two to
    four minutes: restarting the server delays a training step but does not end the run."""

    thoughts: Literal["keep", "drop"] | None = None
    """Whether the judge sees what a policy thought before its answer, between tags such as `<think>`. None: `keep`,
    or the server's setting where the server gathers the groups."""
    failure_reward: float | None = NEUTRAL
    """Reward of a sample that could not be judged, in trainers that need a number: all but TRL's GRPO, RLOO and
    AsyncGRPO. None (`raise` in the environment) raises the error, which ends the run in most trainers."""

    def client(self) -> AsyncGRMClient:
        """A new client. Its connections belong to the event loop that uses it first. For a trainer that may use another
        loop the next time, such as ms-swift, create one client per call."""
        return AsyncGRMClient(self.url, api_key=self.api_key, timeout_s=self.timeout_s, max_retries=self.max_retries)

    def request_options(self) -> dict[str, Any]:
        """The options of every request."""
        return {**self.options, **({} if self.k is None else {"k": self.k})}


def config_from(environment: Mapping[str, str]) -> RewardConfig:
    """Read the configuration from environment variables. Raises ValueError that names the invalid variable."""
    return RewardConfig(
        **{
            name: _parse(PREFIX + name.upper(), environment[PREFIX + name.upper()], parse)
            for name, parse in _PARSERS.items()
            if environment.get(PREFIX + name.upper())
        }
    )


def _object(text: str) -> Mapping[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _thoughts(text: str) -> Literal["keep", "drop"]:
    if text not in ("keep", "drop"):
        raise ValueError("neither keep nor drop")
    return "drop" if text == "drop" else "keep"


_PARSERS = {
    "url": str,
    "api_key": str,
    "k": int,
    "options": _object,
    "concurrency": int,
    "timeout_s": float,
    "max_retries": int,
    "thoughts": _thoughts,
    "failure_reward": lambda text: None if text == "raise" else float(text),
}


def _parse(variable: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{variable} = {text!r}: {error}") from None


_FATAL_STATUS = frozenset({401, 403, 404, 405})
_CONTENT_FIELDS = frozenset({"query", "responses", "prompt", "response", "label"})
"""Fields with text from the data set or the policy. They can make the server refuse one request but not all."""


def is_setup_error(error: GRMClientError) -> bool:
    """Whether the server would refuse every request for the same reason, such as the API key or an option. Later steps
    of the training would then fail too."""
    if not isinstance(error, APIError):
        return False
    content = (error.param or "").split(".")[0] in _CONTENT_FIELDS
    return error.status in _FATAL_STATUS or (error.status == 422 and (not content or error.code == "limit_exceeded"))
