"""Engine statistics, updated after every step. The supervisor uses the step count as a heartbeat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Statistics after an engine's latest step."""

    steps: int = 0
    """Steps so far. If this stands still while samples are in flight, the engine is hung."""
    running: int = 0
    """Engine requests in the running batch."""
    waiting: int = 0
    """Engine requests in the engine's queue."""
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0..1."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache, summed over all steps."""
    prompt_tokens: int = 0
    """Prompt tokens looked up in the prefix cache, summed over all steps."""


class StepStatLogger:
    """A vLLM stat logger (`StatLoggerBase`). vLLM calls it on the event loop after each step."""

    def __init__(self) -> None:
        self.stats = EngineStats()

    def __call__(self, config: Any, engine_index: int) -> StepStatLogger:
        """vLLM expects a factory of loggers; this object is its own factory."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        last, step = self.stats, scheduler_stats
        if step is None:
            self.stats = replace(last, steps=last.steps + 1)
            return
        self.stats = EngineStats(
            steps=last.steps + 1,
            running=step.num_running_reqs,
            waiting=step.num_waiting_reqs + step.num_skipped_waiting_reqs,
            kv_usage=step.kv_cache_usage,
            cached_tokens=last.cached_tokens + step.prefix_cache_stats.hits,
            prompt_tokens=last.prompt_tokens + step.prefix_cache_stats.queries,
        )

    def log_engine_initialized(self) -> None:
        """Required by vLLM; logs nothing."""

    def log(self) -> None:
        """Required by vLLM; logs nothing."""
