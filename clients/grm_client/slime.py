"""What slime and miles load by name. The code is in `grm_client.trainers.slime`."""

from grm_client.trainers.slime import grm_group_rm

__all__ = ["grm_group_rm"]
