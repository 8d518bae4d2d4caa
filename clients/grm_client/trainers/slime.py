"""Rewards for slime and miles, see docs/trainers/slime.md.

    --group-rm --custom-rm-path grm_client.slime.grm_group_rm

Does not import slime: it only reads fields of slime's samples.
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
    """Rewards in the shape of `samples`: a number, a list, or a list of lists.

    args: slime's arguments; ignored.
    samples: `Sample`, list[Sample] or, if a rollout produces several samples, list[list[Sample]].

    A prompt may be in a chat template; the server turns it back into messages. A sample that could not be judged is
    removed from the loss (`remove_sample`) and gets the configuration's `failure_reward`. Raises GRMClientError if the
    configuration has none.
    """
    config = config_from(os.environ)
    flat = list(_flatten(samples))
    groups = [_group_key(sample) for sample in flat]
    counts = Counter(groups)
    # The other members of a single sample's group come in other calls, if at all.
    sizes = [counts[group] for group in groups] if isinstance(samples, list) else [None]
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
                for sample, size in zip(flat, sizes, strict=True)
            ]
    except ExceptionGroup as failures:
        # The first failure cancelled the other tasks, so it is the cause.
        raise failures.exceptions[0] from None
    results = [task.result() for task in running]
    for sample, result in zip(flat, results, strict=True):
        sample.remove_sample = sample.remove_sample or result.failed
    return _in_shape_of(samples, iter([result.reward for result in results]))


def _flatten(samples: Any) -> Iterator[Any]:
    if isinstance(samples, list):
        for sample in samples:
            yield from _flatten(sample)
    else:
        yield samples


def _in_shape_of(samples: Any, rewards: Iterator[float]) -> Any:
    return [_in_shape_of(sample, rewards) for sample in samples] if isinstance(samples, list) else next(rewards)


def _group_key(sample: Any) -> str:
    """Equal for the samples that the server puts into one group."""
    return repr((sample.group_index, sample.prompt, sample.label))
