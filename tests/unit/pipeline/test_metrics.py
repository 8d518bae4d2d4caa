"""Metrics with state."""

from grm_server.pipeline.metrics import count_position_effect
from grm_server.telemetry.metrics import Metrics


def gauge(metrics: Metrics, position: str) -> float:
    lines = metrics.exposition().decode().splitlines()
    return next(
        float(line.split()[-1])
        for line in lines
        if line.startswith(f'grm_position_effect_points{{position="{position}"')
    )


def test_the_position_effect_is_a_plain_mean_at_first_and_follows_later_changes() -> None:
    metrics = Metrics()
    for effect in (1.0, 0.0):
        count_position_effect(metrics.quality, effect, -effect)
    assert gauge(metrics, "first") == 0.5
    assert gauge(metrics, "last") == -0.5
    for _ in range(2000):
        count_position_effect(metrics.quality, 2.0, -2.0)
    assert abs(gauge(metrics, "first") - 2.0) < 0.01
