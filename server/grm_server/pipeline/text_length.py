"""Refuse texts that cannot fit the model's context by their length alone, before anything looks at the text."""

from __future__ import annotations

from grm_server.errors import PromptTooLong
from grm_server.pipeline.types import ScoreRequest


def check_length(request: ScoreRequest, max_model_len: int, max_chars_per_token: int) -> None:
    """Raise PromptTooLong if a response does not fit the context beside the rest of the prompt.

    `oversized` names the responses, so the others of a group are still judged.
    """
    limit = max_model_len * max_chars_per_token
    task = request.task
    shared = sum(len(turn.content) for turn in task.query) + len(task.reference or "") + len(task.principles or "")
    oversized = [at for at, response in enumerate(task.responses) if shared + len(response) > limit]
    if not oversized:
        return
    chars = shared + max(map(len, task.responses))
    needed = -(-chars // max_chars_per_token)
    error = PromptTooLong(
        f"the prompt with one response has {chars} characters, which cannot fit the model's context of {max_model_len} "
        f"tokens at limits.max_chars_per_token = {max_chars_per_token}; send shorter texts",
        details={"prompt_tokens": needed, "needed_tokens": needed, "limit": max_model_len},
    )
    error.oversized = oversized
    raise error
