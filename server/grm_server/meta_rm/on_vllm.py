"""A meta RM on vLLM, as a second engine beside the judge's."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from grm_server.engine.protocol import Rating
from grm_server.engine.tokens import ChatEncoder
from grm_server.engine.vllm.args import is_local, meta_args
from grm_server.engine.vllm.launch import cause_of_death, launch, shut_down
from grm_server.errors import MetaRMFailed
from grm_server.meta_rm.probability import as_probability, check_length
from grm_server.settings import MetaRMSettings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class VLLMMetaRM:
    """A sequence-classification checkpoint in a vLLM engine. Samples of all requests share its batches."""

    def __init__(self, engine: AsyncLLM, model: str, platt: tuple[float, float], timeout_s: float) -> None:
        self.model = model
        self.running = 0
        self.rated = 0
        self._engine = engine
        self._platt = platt
        self._timeout_s = timeout_s
        self._max_tokens: int = engine.vllm_config.model_config.max_model_len
        self._chat = ChatEncoder(engine.get_tokenizer())
        self._request_ids = (f"meta-{number}" for number in itertools.count())

    def raise_if_unavailable(self) -> None:
        if self._engine.errored:
            raise MetaRMFailed(f"the meta RM is gone: {cause_of_death(self._engine)}")

    def prepare(self, prompt: str) -> tuple[int, ...]:
        return check_length(self._chat.prompt(prompt), self._max_tokens)

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        self.running += 1
        try:
            rating = await self._rate(prompt, answer)
        finally:
            self.running -= 1
        self.rated += 1
        return rating

    async def _rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        from vllm import PoolingParams
        from vllm.inputs.engine import tokens_input

        self.raise_if_unavailable()
        ids = check_length([*prompt, *self._chat.assistant_turn(answer)], self._max_tokens)
        params = PoolingParams(task="classify", use_activation=False)
        outputs = self._engine.encode(tokens_input(list(ids)), params, next(self._request_ids))
        try:
            async with asyncio.timeout(self._timeout_s):
                result = [output async for output in outputs][-1]
        except TimeoutError:
            raise MetaRMFailed(f"the meta RM timed out after {self._timeout_s:g} s (meta_rm.timeout_s)") from None
        except Exception as error:  # vLLM raises many types; each means that there is no rating
            raise MetaRMFailed(f"the meta RM failed: {type(error).__name__}") from error
        logits = result.outputs.data.float().flatten().tolist()
        return Rating(as_probability(logits, self._platt), len(ids), result.num_cached_tokens or 0)

    async def close(self) -> None:
        await shut_down(self._engine)


async def start_vllm_meta(
    settings: MetaRMSettings, model_path: str, served_name: str, platt: tuple[float, float]
) -> VLLMMetaRM:
    """Load the meta RM and start its engine. See `launch`."""
    engine = await launch(lambda: meta_args(settings, model_path, served_name), offline=is_local(model_path))
    return VLLMMetaRM(engine, served_name, platt, settings.timeout_s)
