"""A few samples before the first request, which would otherwise pay for what an engine prepares at its first use."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing

from grm_server.engine.protocol import JudgeEngine, SchedulingClass
from grm_server.errors import PromptTooLong
from grm_server.grm.prompts import JudgeTemplate, sanitized, write_script
from grm_server.grm.types import Message, Sample, Task

logger = logging.getLogger(__name__)

SAMPLES = 8
"""Nearly all of it is paid for by the very first; the rest meet the batches that a request's first wave makes."""
_TOKENS = 8
_TASK = Task(
    (Message("user", "Why is the sky blue? Explain it to a child of ten in two or three sentences."),),
    (
        "Sunlight has all colours in it. Air scatters the blue part much more than the red part, so blue light comes "
        "to us from everywhere in the sky.",
        "The sky is blue because it reflects the sea, which is blue, and there is a lot of sea on our planet.",
    ),
)


async def warmed_up(engine: JudgeEngine, template: JudgeTemplate) -> None:
    """Draw samples of a small request that nobody has sent, and forget them.

    Raises EngineDead; where it does, or is cancelled, the sampler is closed. Samples that fail otherwise, or do not fit
    a small model, are no reason not to serve.
    """
    try:
        await _warm_up(engine, template)
    except BaseException:
        await engine.close()
        raise


async def _warm_up(engine: JudgeEngine, template: JudgeTemplate) -> None:
    began_s = time.monotonic()
    try:
        script = write_script(template, sanitized(_TASK, template), (0, 1), _TOKENS)
        prepared = engine.prepare(script)
    except PromptTooLong as error:
        logger.warning("the engine was not warmed up: %s", error)
        return
    failed = 0
    async with aclosing(engine.sample(prepared, range(SAMPLES), 1.0, SchedulingClass.NEW)) as finished:
        async for _, outcome in finished:
            failed += not isinstance(outcome, Sample)
    if failed:
        logger.warning("%d of %d samples of the warm-up failed", failed, SAMPLES)
    logger.info("the engine was warmed up in %.1f s", time.monotonic() - began_s)
