"""The reward of one sample, for trainers that hand them over one at a time: the server gathers the group.

What is sent is the sample alone, at once. Waiting for the rest of its group here could wait for ever: its other members
may be in other processes, or behind this one in a queue.
"""

from __future__ import annotations

import logging
from typing import NamedTuple
from urllib.parse import urlencode

from grm_client.client import AsyncGRMClient
from grm_client.errors import GRMClientError
from grm_client.exchange import bad_answer
from grm_client.groups import Chat, as_query
from grm_client.reward_config import RewardConfig

logger = logging.getLogger(__name__)

PATH = "/reward"


class Single(NamedTuple):
    """What became of one sample."""

    reward: float
    """1 to 10, or the configuration's `failure_reward`."""
    failed: bool


async def judge_one(
    client: AsyncGRMClient,
    config: RewardConfig,
    prompt: Chat,
    response: str,
    *,
    label: str | None = None,
    group: str | None = None,
    size: int | None = None,
) -> Single:
    """Ask for a sample's reward.

    prompt: text, also in a chat template, or messages.
    label: the trainer's, if it has one; samples with different labels are different groups.
    group: the trainer's name of the sample's group. Without it, equal prompts and labels make a group.
    size: members of the group, if known: it is judged as soon as all are there, and not only when none has come for a
        while.

    Raises GRMClientError if the configuration has no `failure_reward`.
    """
    body = {"prompt": as_query(prompt), "response": response, "label": label}
    named = {} if group is None else {"group_id": group}
    query = {"shape": "object", "on_failure": "null"} | ({} if size is None else {"n": str(size)})
    try:
        reward = (await client.post(body | named, f"{PATH}?{urlencode(query)}"))["reward"]
        if not isinstance(reward, int | float):
            bad_answer("the group was not judged; the server's log says why")
        return Single(float(reward), False)
    except GRMClientError as error:
        if config.failure_reward is None:
            raise
        logger.warning("no reward for a sample, which gets %s: %s", config.failure_reward, error)
        return Single(config.failure_reward, True)
