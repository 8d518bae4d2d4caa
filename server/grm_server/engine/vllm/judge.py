"""The judge on vLLM's AsyncLLM."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grm_server.engine.protocol import Outcome, SchedulingClass, TokenizedScript, as_finished
from grm_server.engine.stats import EngineStats, StepStatLogger
from grm_server.engine.tokens import ChatEncoder, chat_template_of
from grm_server.engine.vllm.args import is_local, judge_args
from grm_server.engine.vllm.launch import cause_of_death, launch, shut_down
from grm_server.errors import EngineDead, GenerationFailed, PromptTooLong
from grm_server.grm.ballots import MAX_AMBIGUOUS, number_starts
from grm_server.grm.plan import derive_seed
from grm_server.grm.types import Sample, ScoreToken, Script, Segment
from grm_server.settings import EngineSettings

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs, CompletionOutput, RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

_STAGES = 4
"""More than the segments of a script, so a continuation never overtakes samples of a more urgent class."""
_SCORE_LOGPROBS = 20
"""vLLM's maximum; enough for the ten scores and the separators between them."""


class VLLMJudgeEngine:
    """A judge on vLLM.

    Each segment of a sample is a separate engine request. The text so far is in the prefix cache, so a continuation
    recomputes less than one block. Free text needs no grammar, and scores get theirs even after a critique that was cut
    off. One call of `sample` is one prompt, tokenised once. Its samples are separate requests, because each has its own
    seed, ends by itself and can be aborted by itself.

    Untested: LoRA adapters (`engine.lora`).
    """

    def __init__(self, engine: AsyncLLM, settings: EngineSettings, model: str, stat_logger: StepStatLogger) -> None:
        self.model = model
        self.running = 0
        self._engine = engine
        self._stat_logger = stat_logger
        self._closed = False
        config = engine.vllm_config
        self.max_model_len: int = config.model_config.max_model_len
        self._chat = judge_encoder(engine.get_tokenizer(), settings)
        self._block_size: int = config.cache_config.block_size
        self._lora = _lora_request(settings.lora)
        self._request_ids = (f"grm-{number}" for number in itertools.count())

    @property
    def stats(self) -> EngineStats:
        return self._stat_logger.stats

    def raise_if_unavailable(self) -> None:
        if self._closed:
            raise EngineDead("the engine was closed")
        if self._engine.errored:
            raise EngineDead(cause_of_death(self._engine))

    def raise_if_not_ready(self) -> None:
        self.raise_if_unavailable()

    def prepare(self, script: Script) -> TokenizedScript:
        first, *rest = script.segments
        limit = self.max_model_len
        token_ids = (
            (*self._chat.prompt(script.prompt, limit), *self._chat.text(first.lead, limit)),
            *(tuple(self._chat.text(segment.lead)) for segment in rest),
        )
        prompt_tokens = len(token_ids[0])
        needed = sum(map(len, token_ids)) + sum(segment.max_tokens for segment in script.segments)
        if needed > self.max_model_len:
            raise PromptTooLong(
                f"the prompt has at least {prompt_tokens} tokens; with the sample's token budget it needs {needed}, "
                f"more than the model's context of {self.max_model_len}: shorten the texts, send fewer responses or "
                "lower max_critique_tokens",
                details={"prompt_tokens": prompt_tokens, "needed_tokens": needed, "limit": self.max_model_len},
            )
        return TokenizedScript(script, token_ids)

    def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        self.raise_if_unavailable()
        return as_finished([self._write(prepared, seed, temperature, scheduling) for seed in seeds])

    async def _write(
        self, prepared: TokenizedScript, seed: int, temperature: float, scheduling: SchedulingClass
    ) -> Outcome:
        """Write one sample, counted in `running`."""
        self.running += 1
        try:
            return await self._write_segments(prepared, seed, temperature, scheduling)
        finally:
            self.running -= 1

    async def _write_segments(
        self, prepared: TokenizedScript, seed: int, temperature: float, scheduling: SchedulingClass
    ) -> Outcome:
        """Write all segments of one sample, one after the other."""
        from vllm.v1.engine.exceptions import EngineDeadError

        context: list[int] = []
        texts: dict[str, str] = {}
        cut: list[str] = []
        score_tokens: tuple[ScoreToken, ...] = ()
        ten_share: float | None = None
        prompt_tokens = cached_tokens = completion_tokens = 0
        started_s = time.monotonic()
        try:
            for stage, (segment, lead) in enumerate(zip(prepared.script.segments, prepared.token_ids, strict=True)):
                context += lead
                # One seed per segment: vLLM creates a generator per request, and equal noise would favour the same
                # tokens at the start of principles, critique and scores.
                params = self._params(segment, derive_seed(seed, stage), temperature, len(context))
                # Continuations go first: while queued behind new samples, their prefix cache blocks could be evicted.
                priority = scheduling * _STAGES - stage
                result = await self._generate(context, params, priority)
                output = result.outputs[0]
                if stage == 0:
                    prompt_tokens, cached_tokens = len(context), result.num_cached_tokens or 0
                    if result.metrics is not None:
                        started_s = result.metrics.scheduled_ts
                completion_tokens += len(output.token_ids)
                texts[segment.name] = output.text
                if segment.pattern is not None:
                    score_tokens = _score_tokens(output)
                    if segment.expected:
                        ten_share = await self._ten_share(context, output, seed, temperature, priority)
                elif output.finish_reason == "length":
                    cut.append(segment.name)
                context += self._chat.ids_of_text(context, output.token_ids, output.text)
        except EngineDeadError as error:
            raise EngineDead(cause_of_death(self._engine)) from error
        except EngineDead:
            raise
        except Exception as error:  # vLLM raises many types; the failure of one sample must not end the request
            # During shutdown, an error is the engine's, not the sample's.
            self.raise_if_unavailable()
            logger.warning("a sample failed in the engine: %s", type(error).__name__)
            return GenerationFailed(f"{type(error).__name__}: {error}")
        return Sample(
            texts=texts,
            cut=tuple(cut),
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            score_tokens=score_tokens,
            ten_share=ten_share,
            started_s=started_s,
            finished_s=time.monotonic(),
        )

    async def _ten_share(
        self, context: list[int], output: CompletionOutput, seed: int, temperature: float, priority: int
    ) -> float | None:
        """See `Sample.ten_share`. If the last score does not begin with "1", we generate one token after a "1"."""
        starts = number_starts([token.text for token in _score_tokens(output)])
        if not starts or output.logprobs is None:
            return None
        candidates = output.logprobs[starts[-1]]
        if any((c.decoded_token or "").strip() == "10" for c in candidates.values()):
            return None
        ones = {token_id: c.logprob for token_id, c in candidates.items() if (c.decoded_token or "").strip() == "1"}
        if sum(map(math.exp, ones.values())) <= MAX_AMBIGUOUS:
            return None
        if output.token_ids[starts[-1]] in ones:
            after = output.logprobs[starts[-1] + 1]
        else:
            likeliest = max(ones, key=ones.__getitem__)
            tail = [*context, *output.token_ids[: starts[-1]], likeliest]
            segment = Segment("scores", lead="", max_tokens=1, pattern=r"[0}]")
            result = await self._generate(tail, self._params(segment, seed, temperature, len(tail)), priority)
            after = (result.outputs[0].logprobs or [{}])[0]
        return sum(math.exp(c.logprob) for c in after.values() if (c.decoded_token or "").strip() == "0")

    async def _generate(self, context: list[int], params: SamplingParams, priority: int) -> RequestOutput:
        """Run one engine request. Cancelling the call aborts the request in the engine."""
        from vllm.inputs.engine import tokens_input

        self.raise_if_unavailable()
        outputs = self._engine.generate(
            tokens_input(list(context)),
            params,
            next(self._request_ids),
            lora_request=self._lora,
            priority=priority,
        )
        # FINAL_ONLY yields a single output, at the end.
        return [output async for output in outputs][-1]

    def _params(self, segment: Segment, seed: int, temperature: float, context_tokens: int) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        if segment.pattern is not None:
            return SamplingParams(
                temperature=temperature,
                seed=seed,
                max_tokens=segment.max_tokens,
                logprobs=_SCORE_LOGPROBS,
                structured_outputs=StructuredOutputsParams(regex=segment.pattern),
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        return SamplingParams(
            temperature=temperature,
            seed=seed,
            max_tokens=_align_to_block(segment.max_tokens, context_tokens, self._block_size),
            stop=list(segment.stops),
            stop_token_ids=list(self._chat.control_ids),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def load_adapter(self) -> None:
        """Load the LoRA adapter, if any, at start: vLLM would report a missing one only at the first request."""
        if self._lora is not None:
            await self._engine.add_lora(self._lora)

    async def close(self) -> None:
        self._closed = True
        await shut_down(self._engine)


def judge_encoder(tokenizer: Any, settings: EngineSettings) -> ChatEncoder:
    """The judge's encoder. Raises ValueError for a tokenizer that no judge can use, and OSError if the file
    `engine.chat_template` cannot be read."""
    template = None if settings.chat_template is None else settings.chat_template.read_text("utf-8")
    if not (template or chat_template_of(tokenizer)):
        raise ValueError(
            "the model's tokenizer has no chat template, so the judge would not see where a turn ends: choose an "
            "instruction-tuned model, or set engine.chat_template to a Jinja file"
        )
    return ChatEncoder(tokenizer, template)


def load_judge_encoder(source: str | Path, settings: EngineSettings) -> ChatEncoder:
    """`judge_encoder` of a model on this machine, without vLLM. Also raises ImportError, without transformers."""
    from transformers import AutoTokenizer

    return judge_encoder(AutoTokenizer.from_pretrained(source), settings)


async def start_vllm(settings: EngineSettings, model_path: str, served_name: str) -> VLLMJudgeEngine:
    """Load the judge and start its engine. See `launch`."""
    offline = is_local(model_path) and (settings.lora is None or is_local(settings.lora))
    stat_logger = StepStatLogger()

    def checked_args() -> AsyncEngineArgs:
        from vllm.tokenizers import cached_tokenizer_from_config

        args = judge_args(settings, model_path, served_name)
        # Before the weights are loaded, which takes minutes. vLLM reuses this tokenizer.
        judge_encoder(cached_tokenizer_from_config(args.create_model_config()), settings)
        return args

    engine = await launch(checked_args, offline=offline, stat_logger=stat_logger)
    try:
        judge = VLLMJudgeEngine(engine, settings, served_name, stat_logger)
        await judge.load_adapter()
    except BaseException:
        await shut_down(engine)
        raise
    return judge


def _align_to_block(max_tokens: int, context_tokens: int, block_size: int) -> int:
    """Shrink a budget by less than a block, so a text cut off at the budget ends at a block boundary.

    The continuation then finds the whole text in the prefix cache and computes only its lead. The last token does not
    count: the engine draws it but does not compute it. Small budgets are unchanged.
    """
    if max_tokens < 2 * block_size:
        return max_tokens
    return max_tokens - (context_tokens + max_tokens - 1) % block_size


def _lora_request(lora: str | None) -> Any:
    if lora is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("judge", 1, lora)


def _score_tokens(output: CompletionOutput) -> tuple[ScoreToken, ...]:
    tokens = []
    for token_id, candidates in zip(output.token_ids, output.logprobs or (), strict=False):
        logprobs = {c.decoded_token or "": c.logprob for c in candidates.values() if math.isfinite(c.logprob)}
        tokens.append(ScoreToken(candidates[token_id].decoded_token or "", logprobs))
    return tuple(tokens)
