"""The names that ms-swift loads; the code is in `grm_client.trainers.swift`."""

from grm_client.trainers.swift import GRMReward

__all__ = ["GRMReward"]
