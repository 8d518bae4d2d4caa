"""Warm-up: a few samples before the first request, which would otherwise pay for one-time work of the engine."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

from grm_server.engine.protocol import JudgeEngine, SchedulingClass
from grm_server.errors import PromptTooLong
from grm_server.grm.prompt_template import sanitized
from grm_server.grm.prompts import Budgets, JudgeFormat, write_script
from grm_server.grm.script import Sample, Sampling
from grm_server.grm.types import Message, Task

logger = logging.getLogger(__name__)

SAMPLES = 8
"""The first sample does nearly all of the one-time work. The others warm up the batch sizes of a first wave."""
_TOKENS = 8
_TASK = Task(
    (Message("user", "Why is the sky blue? Explain it to a child of ten in two or three sentences."),),
    (
        "Sunlight has all colours in it. Air scatters the blue part much more than the red part, so blue light comes "
        "to us from everywhere in the sky.",
        "The sky is blue because it reflects the sea, which is blue, and there is a lot of sea on our planet.",
    ),
)


async def warm_up(engine: JudgeEngine, form: JudgeFormat) -> None:
    """Draw samples of a small built-in request and discard them.

    Raises EngineDead. Other failures of samples, and a prompt that does not fit a small model, are only logged.
    """
    began_s = time.monotonic()
    try:
        order = tuple(range(len(_TASK.responses)))[: form.file.shows.max]
        script = write_script(form, sanitized(_TASK, form.structure), order, Budgets(_TOKENS, _TOKENS))
        prepared = engine.prepare(script)
    except PromptTooLong as error:
        logger.warning("skipped the engine's warm-up: %s", error)
        return
    failed = 0
    async with aclosing(engine.sample(prepared, range(SAMPLES), Sampling(1.0), SchedulingClass.NEW)) as finished:
        async for _, outcome in finished:
            failed += not isinstance(outcome, Sample)
    if failed:
        logger.warning("%d of %d warm-up samples failed", failed, SAMPLES)
    logger.info("the engine's warm-up took %.1f s", time.monotonic() - began_s)
