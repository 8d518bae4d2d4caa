"""What TRL loads by name. The code is in `grm_client.trainers.trl`."""

from grm_client.trainers.trl import grm_reward, grm_reward_sync, make_grm_reward

__all__ = ["grm_reward", "grm_reward_sync", "make_grm_reward"]
