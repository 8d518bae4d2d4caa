"""The reward of one sample, for trainers that hand them over one at a time: the server gathers the group.

What is sent is the sample alone, at once. Waiting for the rest of its group here could wait for ever: its other members
may be in other processes, or behind this one in a queue.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from grm_client.client import AsyncGRMClient
from grm_client.errors import APIError, GRMClientError
from grm_client.trainers.groups import Chat, as_query
from grm_client.trainers.reward_config import RewardConfig, is_set_up

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
    label: object = None,
    group: str = "",
    size: int | None = None,
) -> Single:
    """Ask for a sample's reward.

    prompt: text, also in a chat template, or messages.
    label: the data set's, if it has one; the judge is shown it as a reference.
    group: the trainer's name of the sample's group. Without it, equal prompts and labels make a group.
    size: members of the group, if known: it is judged as soon as all are there, and not only when none has come for a
        while.

    Raises GRMClientError if the configuration has no `failure_reward`, or the server refuses what all requests have in
    common.
    """
    told = label if label is None or isinstance(label, str) else json.dumps(label, default=str)
    body = {"prompt": as_query(prompt), "response": response, "label": told, "group": group}
    try:
        answer = await client.post(body, f"{PATH}?{urlencode(_query(config, size))}")
        if answer.get("judgement") is None:
            raise APIError(200, "not_judged", "the sample was not judged; the server's log says why")
        return Single(float(answer["reward"]), False)
    except GRMClientError as error:
        if config.failure_reward is None or is_set_up(error):
            raise
        logger.warning("no reward for a sample, which gets %s: %s", config.failure_reward, error)
        return Single(config.failure_reward, True)


def _query(config: RewardConfig, size: int | None) -> dict[str, object]:
    """Options go into the URL, which takes the name of a stopping rule and not its level."""
    options = config.request_options()
    rule = options.get("stop")
    named = {"stop": rule["rule"]} if isinstance(rule, Mapping) else {}
    return {"shape": "object", **options, **named, **({} if size is None else {"n": size})}
