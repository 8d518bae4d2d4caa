"""Bodies as NeMo-Gym and NeMo-RL send them."""

from typing import Any


def response(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    thought = {"id": "t", "type": "reasoning", "summary": [{"type": "summary_text", "text": "SECRET THOUGHT"}]}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return {
        "id": "resp_1",
        "created_at": 0,
        "model": "policy",
        "object": "response",
        "output": [thought, message],
        "parallel_tool_calls": True,
    }


def rollout(text: str, **more: Any) -> dict[str, Any]:
    asked = {"input": [{"role": "user", "content": "Why?"}], "temperature": 1.0}
    body = {"responses_create_params": asked, "response": response(text), "principle": None, "dataset": "hs3"}
    return body | more


def member(index: int, text: str, attempt: int = 0, **more: Any) -> dict[str, Any]:
    return rollout(text, _ng_group_id="g", _ng_group_attempt=attempt, _ng_rollout_index=index) | more


def genrm(first: str, second: str, **more: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "Why?"},
        {"role": "principle", "content": "Be right."},
        {"role": "response_1", "content": first},
        {"role": "response_2", "content": second},
    ]
    return {"model": "genrm", "messages": turns, "max_tokens": 16384, "temperature": 0.6, "top_p": 0.95} | more
