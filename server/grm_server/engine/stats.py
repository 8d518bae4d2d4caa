"""How an engine is seen to live: every step that it takes is told to the front end, with what it is doing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine last said of itself."""

    steps: int = 0
    """Steps that it has taken. One that stands still while samples are being written is hung."""
    running: int = 0
    """Engine requests that it works on."""
    waiting: int = 0
    """Engine requests in its queue."""
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0..1."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache, of all steps."""
    prompt_tokens: int = 0
    """Prompt tokens looked up in it, of all steps."""


class StepStatLogger:
    """A vLLM stat logger (`StatLoggerBase`), called on the event loop after each step."""

    def __init__(self) -> None:
        self.pulse = EngineStats()

    def __call__(self, config: Any, engine_index: int) -> StepStatLogger:
        """vLLM takes what makes a logger, not a logger."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        last, stats = self.pulse, scheduler_stats
        if stats is None:
            self.pulse = replace(last, steps=last.steps + 1)
            return
        self.pulse = EngineStats(
            steps=last.steps + 1,
            running=stats.num_running_reqs,
            waiting=stats.num_waiting_reqs + stats.num_skipped_waiting_reqs,
            kv_usage=stats.kv_cache_usage,
            cached_tokens=last.cached_tokens + stats.prefix_cache_stats.hits,
            prompt_tokens=last.prompt_tokens + stats.prefix_cache_stats.queries,
        )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def log(self) -> None:
        """Likewise."""
