"""Record the metrics of an answered request."""

from __future__ import annotations

import numpy as np

from grm_server.grm.agreement import consensus_auc, disagreement
from grm_server.grm.evidence import position_effect
from grm_server.grm.types import Trajectory
from grm_server.pipeline.types import Judgement, ScoreRequest
from grm_server.telemetry.metrics import Metrics


def count_answer(metrics: Metrics, request: ScoreRequest, judgement: Judgement) -> None:
    n = len(request.task.responses)
    metrics.answered(
        n,
        stop_reason=judgement.stop_reason.value,
        k_used=judgement.k_used,
        queue_s=judgement.queue_s,
        generate_s=judgement.generate_s,
        total_s=judgement.total_s,
    )
    if judgement.aggregate != request.aggregate:
        metrics.unguided.inc()
    quality = metrics.quality
    quality.tokens_per_reward.observe(judgement.completion_tokens / n)
    valid = [outcome for outcome in judgement.outcomes if isinstance(outcome, Trajectory)]
    # The sampled scores, for any `Reading` and aggregate.
    scores = np.array([trajectory.scores for trajectory in valid], dtype=float)
    if (share := disagreement(scores)) is not None:
        quality.disagreement.observe(share)
    effect = position_effect(scores, [trajectory.draw.order for trajectory in valid], np.nanmean(scores, axis=0))
    if effect is not None:
        quality.position_effect(effect[0], effect[-1])
    meta_rewards = np.array([trajectory.meta_reward for trajectory in valid], dtype=float)
    rated = ~np.isnan(meta_rewards)
    if (auc := consensus_auc(scores[rated], meta_rewards[rated])) is not None:
        quality.consensus_auc.observe(auc)
