"""Reward of a single sample, for trainers that pass samples one at a time. The server gathers the group.

Each sample is sent at once. Waiting here for the rest of its group could deadlock: the other members may be in other
processes, or queued behind this one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from grm_client.async_client import AsyncGRMClient
from grm_client.errors import APIError, GRMClientError, InvalidRequest
from grm_client.plain import label_text
from grm_client.trainers.groups import Chat, read_completion, read_prompt
from grm_client.trainers.reward_config import RewardConfig, is_setup_error
from grm_client.transport import bad_answer

logger = logging.getLogger(__name__)

PATH = "/reward"


class SingleReward(NamedTuple):
    """Reward of one sample."""

    reward: float
    """1 to 10, or the configuration's `failure_reward`."""
    failed: bool
    """Whether the sample could not be judged."""


async def judge_one(
    client: AsyncGRMClient,
    config: RewardConfig,
    prompt: Chat,
    response: Chat,
    *,
    label: object = None,
    group: str = "",
    size: int | None = None,
) -> SingleReward:
    """Request the reward of one sample.

    prompt: messages, or text, with or without a chat template.
    label: the data set's label, if any: text, a number, a list or an array; the judge sees it as a reference answer.
    group: the trainer's name of the sample's group. Without it, samples with equal prompts and labels form a group.
    size: number of members of the group, if known. The server then judges the group as soon as it is complete, instead
        of waiting until no new member has arrived for a while.

    Raises GRMClientError if the configuration has no `failure_reward`, or if the server would refuse every request for
    the same reason.
    """
    try:
        body = _body(prompt, response, label, group)
        answer = await client.post(body, f"{PATH}?{urlencode(_url_options(config, size))}")
        if answer.get("judgement") is None:
            raise APIError(200, "not_judged", "the sample was not judged; see the server's log for the reason")
        reward = answer.get("reward")
        if not isinstance(reward, int | float):
            bad_answer("reward: not a number")
        return SingleReward(float(reward), False)
    except GRMClientError as error:
        if config.failure_reward is None or is_setup_error(error):
            raise
        logger.warning("a sample could not be judged and gets reward %s: %s", config.failure_reward, error)
        return SingleReward(config.failure_reward, True)


def _body(prompt: Chat, response: Chat, label: object, group: str) -> dict[str, object]:
    try:
        reference = label_text(label)
    except Exception as error:
        # Any object can be a label, and converting it runs its code.
        raise InvalidRequest(f"the label cannot be turned into text: {error}") from None
    return {
        "prompt": read_prompt(prompt),
        "response": read_completion(response),
        "label": reference,
        "group": group,
    }


def _url_options(config: RewardConfig, size: int | None) -> dict[str, object]:
    """The options as URL parameters. Of a stopping rule, the URL takes only the name."""
    options = config.request_options()
    stop = options.get("stop")
    rule = {"stop": stop["rule"]} if isinstance(stop, Mapping) else {}
    thoughts = {} if config.thoughts is None else {"thoughts": config.thoughts}
    return {"shape": "object", **options, **rule, **thoughts, **({} if size is None else {"n": size})}
