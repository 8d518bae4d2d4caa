"""What the ms-swift plugin loads. The code is in `grm_client.trainers.swift`."""

from grm_client.trainers.swift import GRMReward

__all__ = ["GRMReward"]
