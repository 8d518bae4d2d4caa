"""What verl loads by name. The code is in `grm_client.trainers.verl`."""

from grm_client.trainers.verl import GRMRewardManager, compute_score

__all__ = ["GRMRewardManager", "compute_score"]
