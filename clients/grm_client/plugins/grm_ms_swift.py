"""Plugin for ms-swift's `--external_plugins`: registers the reward function `grm`."""

from swift.rewards import orms

from grm_client.swift import GRMReward

orms["grm"] = GRMReward
