"""Trajectories as the tokens that the server sends to a meta RM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from grm_server.engine.tokens import ChatEncoder
from grm_server.errors import InvalidRequest
from grm_train.meta_rm.trajectories import Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A trajectory in tokens; its score is read at the last one."""

    trajectory: Trajectory
    prompt: tuple[int, ...]
    """The same object for all that share it."""
    answer: tuple[int, ...]


def encode(
    tokenizer: Any,
    trajectories: Iterable[Trajectory],
    max_tokens: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Encoded], Counter[str]]:
    """The trajectories that fit, and how many do not, by reason.

    on_done: told how many were dealt with. Raises ValueError for a tokenizer that hostile text cannot be kept from.
    """
    chat = ChatEncoder(tokenizer)
    found: list[Encoded] = []
    left_out: Counter[str] = Counter()
    user: str | None = None
    prompt: tuple[int, ...] = ()
    for trajectory in trajectories:
        on_done(1)
        try:
            if trajectory.user != user:
                user, prompt = trajectory.user, tuple(chat.prompt(trajectory.user))
            answer = tuple(chat.answered(trajectory.answer))
        except InvalidRequest:
            left_out["that the tokenizer cannot keep from control tokens"] += 1
            user = None
            continue
        if len(prompt) + len(answer) > max_tokens:
            left_out[f"longer than {max_tokens} tokens"] += 1
        else:
            found.append(Encoded(trajectory, prompt, answer))
    return found, left_out
