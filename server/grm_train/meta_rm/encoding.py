"""Trajectories as tokens, exactly as the server sends them to a meta RM."""

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
    """A trajectory in tokens. Its score is read at the last token."""

    trajectory: Trajectory
    prompt: tuple[int, ...]
    """One object, shared by all trajectories with this prompt."""
    answer: tuple[int, ...]


def encode(
    tokenizer: Any,
    trajectories: Iterable[Trajectory],
    max_tokens: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Encoded], Counter[str]]:
    """The trajectories that fit into `max_tokens`, and counts of the others by reason.

    on_done: called with the number of trajectories just processed. Raises ValueError for a tokenizer that cannot make
    hostile text safe.
    """
    chat = ChatEncoder(tokenizer)
    encoded: list[Encoded] = []
    left_out: Counter[str] = Counter()
    user: str | None = None
    prompt: tuple[int, ...] = ()
    for trajectory in trajectories:
        on_done(1)
        try:
            if trajectory.user != user:
                user, prompt = trajectory.user, tuple(chat.prompt(trajectory.user))
            answer = tuple(chat.assistant_turn(trajectory.answer))
        except InvalidRequest:
            left_out["with text that would become control tokens"] += 1
            user = None
            continue
        if len(prompt) + len(answer) > max_tokens:
            left_out[f"longer than {max_tokens} tokens"] += 1
        else:
            encoded.append(Encoded(trajectory, prompt, answer))
    return encoded, left_out
