"""Rewards for slime and miles, see docs/trainers/slime.md.

    --group-rm --custom-rm-path grm_client.slime.grm_group_rm

Nothing of slime is imported: its samples are read by their fields.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from grm_client.trainers.reward_config import config_from
from grm_client.trainers.single_rewards import judge_one


async def grm_group_rm(args: object, samples: Any, **rest: object) -> Any:
    """Rewards in the shape of the samples: a number for one, a list for a list, and lists for lists of them.

    args: slime's; not looked at.
    samples: `Sample`, list[Sample] or, where a rollout made several samples, list[list[Sample]].

    A prompt may be in a chat template, which the server undoes. A sample that was not judged is taken out of the loss
    (`remove_sample`) and gets the configuration's `failure_reward`, or raises where there is none.
    """
    config = config_from(os.environ)
    each = list(_flat(samples))
    groups = [_group(sample) for sample in each]
    there = Counter(groups)
    # Of a sample by itself, others of its group come in other calls, if at all.
    sizes = [there[group] for group in groups] if isinstance(samples, list) else [None]
    try:
        async with config.client() as client, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    judge_one(
                        client,
                        config,
                        sample.prompt,
                        sample.response,
                        label=sample.label,
                        group="" if sample.group_index is None else str(sample.group_index),
                        size=size,
                    )
                )
                for sample, size in zip(each, sizes, strict=True)
            ]
    except ExceptionGroup as failures:
        # The others ended with the first; it alone is the reason.
        raise failures.exceptions[0] from None
    singles = [task.result() for task in running]
    for sample, single in zip(each, singles, strict=True):
        sample.remove_sample = sample.remove_sample or single.failed
    rewards = iter([single.reward for single in singles])
    return _shaped(samples, rewards)


def _flat(samples: Any) -> Iterator[Any]:
    if isinstance(samples, list):
        for sample in samples:
            yield from _flat(sample)
    else:
        yield samples


def _shaped(samples: Any, rewards: Iterator[float]) -> Any:
    return [_shaped(sample, rewards) for sample in samples] if isinstance(samples, list) else next(rewards)


def _group(sample: Any) -> str:
    """What the server takes for a group too."""
    return repr((sample.group_index, sample.prompt, sample.label))
