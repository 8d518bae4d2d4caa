"""Requests for the tests of admission control."""

from grm_server.grm.stopping import Fixed, StopRule
from grm_server.grm.types import Message, Task
from grm_server.pipeline.types import ScoreRequest

FIXED = Fixed()


def score_request(
    n: int = 2, k: int = 16, stop: StopRule = FIXED, list_size: int = 8, deadline_s: float = 60
) -> ScoreRequest:
    """A query of 100 characters and n responses of 50 characters."""
    task = Task((Message("user", "q" * 100),), ("a" * 50,) * n)
    return ScoreRequest(task, k, 5, 0.5, 192, deadline_s, stop=stop, list_size=list_size)
