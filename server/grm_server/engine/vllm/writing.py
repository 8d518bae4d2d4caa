"""Write one sample on vLLM, segment by segment."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grm_server.engine.protocol import SchedulingClass, TokenizedScript
from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.plan import derive_seed
from grm_server.grm.script import Grammar, Sample, Sampling, Segment, VerdictToken
from grm_server.grm.verdicts import MAX_AMBIGUOUS, last_value_start

if TYPE_CHECKING:
    from vllm import CompletionOutput, RequestOutput, SamplingParams

_STAGES = 8
"""More than the requests of a sample, so a continuation never overtakes samples of a more urgent class."""
_LOGPROBS = 20
"""vLLM's maximum; enough for the values of a verdict and the separators between them."""

Generate = Callable[[list[int], "SamplingParams", int], Awaitable["RequestOutput"]]
"""(context, parameters, priority) -> the finished request."""


class SampleWriter:
    """One sample on its way.

    Each segment is a separate engine request. The text so far is in the prefix cache, so a continuation recomputes less
    than one block. Free text needs no grammar, and the verdict gets its grammar even after a critique that was cut off.
    """

    def __init__(
        self,
        generate: Generate,
        chat: ChatEncoder,
        block_size: int,
        prepared: TokenizedScript,
        seed: int,
        sampling: Sampling,
        scheduling: SchedulingClass,
    ) -> None:
        self._generate = generate
        self._chat = chat
        self._block_size = block_size
        self._prepared = prepared
        self._seed = seed
        self._sampling = sampling
        self._scheduling = scheduling
        self._context: list[int] = [*prepared.prompt]
        self._requests = 0
        self._tokens = 0

    async def write(self) -> Sample:
        """Write all segments, one after the other."""
        texts: dict[str, str] = {}
        cut: list[str] = []
        unmarked: list[str] = []
        verdicts: list[tuple[VerdictToken, ...]] = []
        ten_share: float | None = None
        first: RequestOutput | None = None
        thought_tokens = 0
        started_s = time.monotonic()
        before = _End(marked=True)
        for number, (segment, leads) in enumerate(
            zip(self._prepared.script.segments, self._prepared.leads, strict=True)
        ):
            if segment.optional is not None and not self._prepared.opened:
                probe = await self._probe(segment.optional)
                first = first or probe.result
                if not probe.opened:
                    before = _End(marked=True, skipped=True, begun=probe.text, is_over=probe.is_over)
                    continue
            lead = leads.if_skipped if before.skipped else leads.ids if before.marked else leads.if_unmarked
            if number and lead and before.begun:
                # The format puts a lead here, so what the model began with instead is discarded.
                del self._context[len(self._prepared.prompt) :]
                before = _End(marked=True)
            self._context += lead
            if before.is_over and segment.grammar is None:
                texts[segment.name] = before.begun
                unmarked.append(segment.name)
                before = _End(marked=False)
                continue
            pattern = None if segment.grammar is None else segment.grammar.pattern
            result = await self._request(segment.max_tokens, segment.stops, pattern)
            first = first or result
            output = result.outputs[0]
            text, end = before.begun + output.text, self._end(segment, output)
            ids = self._chat.ids_of_text(self._context, output.token_ids, output.text)
            if before.begun and (at := _earliest(text, segment.stops)) is not None:
                # A mark that began in the probe.
                text, end = text[:at], _End(marked=True)
                del self._context[len(self._prepared.prompt) :]
                ids = self._chat.text(text)
            texts[segment.name] = text
            if segment.grammar is not None:
                verdicts.append(verdict_tokens(output))
                if segment.may_be_ten:
                    ten_share = await self._ten_share(segment.grammar, output)
            else:
                if output.finish_reason == "length":
                    cut.append(segment.name)
                if not end.marked:
                    unmarked.append(segment.name)
                if segment.name == "thought":
                    thought_tokens += len(output.token_ids)
            self._context += ids
            before = end
        assert first is not None
        if first.metrics is not None:
            started_s = first.metrics.scheduled_ts
        return Sample(
            texts=texts,
            cut=tuple(cut),
            unmarked=tuple(unmarked),
            prompt_tokens=self._prepared.prompt_tokens,
            cached_tokens=first.num_cached_tokens or 0,
            completion_tokens=self._tokens,
            thought_tokens=thought_tokens,
            verdict_tokens=tuple(verdicts),
            ten_share=ten_share,
            started_s=started_s,
            finished_s=time.monotonic(),
        )

    async def _probe(self, opens: str) -> _Probe:
        """Let the model write as many tokens as `opens` has, and see whether it does."""
        ids = self._chat.control_text(opens.strip())
        result = await self._request(len(ids))
        output = result.outputs[0]
        written = list(output.token_ids)
        is_control = bool(written) and written[-1] in self._chat.control_ids
        if written == ids[: len(written)] and (len(written) == len(ids) or is_control):
            self._context += ids
            return _Probe(result, opened=True)
        is_over = is_control or output.finish_reason == "stop"
        self._context += self._chat.ids_of_text(self._context, written, output.text)
        return _Probe(result, opened=False, text=output.text, is_over=is_over)

    def _end(self, segment: Segment, output: CompletionOutput) -> _End:
        """How the segment ended."""
        if segment.grammar is not None or isinstance(output.stop_reason, str):
            return _End(marked=True)
        # A mark may be a control token of the model, such as </think>.
        is_mark = isinstance(output.stop_reason, int) and any(
            self._chat.control_text(mark) == [output.stop_reason] for mark in segment.stops
        )
        return _End(marked=is_mark)

    async def _ten_share(self, grammar: Grammar, output: CompletionOutput) -> float | None:
        """See `Sample.ten_share`. If the last value does not begin with "1", we generate one token after a "1"."""
        tokens = verdict_tokens(output)
        at = last_value_start(grammar, [token.text for token in tokens])
        if at is None or output.logprobs is None:
            return None
        candidates = output.logprobs[at]
        if any((c.decoded_token or "").strip() == "10" for c in candidates.values()):
            return None
        ones = {token_id: c.logprob for token_id, c in candidates.items() if (c.decoded_token or "").strip() == "1"}
        if sum(map(math.exp, ones.values())) <= MAX_AMBIGUOUS:
            return None
        if output.token_ids[at] in ones:
            if at + 1 == len(output.logprobs):
                return None
            after = output.logprobs[at + 1]
        else:
            likeliest = max(ones, key=ones.__getitem__)
            tail = [*output.token_ids[:at], likeliest]
            result = await self._request(1, pattern=_ten_or(grammar.end), tail=tail)
            after = (result.outputs[0].logprobs or [{}])[0]
        return sum(math.exp(c.logprob) for c in after.values() if (c.decoded_token or "").strip() == "0")

    async def _request(
        self, max_tokens: int, stops: Sequence[str] = (), pattern: str | None = None, tail: Sequence[int] = ()
    ) -> RequestOutput:
        """Run one engine request on the context so far, and on `tail`. Cancelling the call aborts it.

        pattern: a regular expression for the text, whose log-probabilities are returned.
        """
        context = [*self._context, *tail]
        params = self._params(max_tokens, stops, pattern, len(context))
        # Continuations go first: while queued behind new samples, their prefix cache blocks could be evicted.
        result = await self._generate(context, params, self._scheduling * _STAGES - self._requests)
        self._requests += 1
        self._tokens += len(result.outputs[0].token_ids)
        return result

    def _params(
        self, max_tokens: int, stops: Sequence[str], pattern: str | None, context_tokens: int
    ) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        common = {
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "top_k": self._sampling.top_k,
            "repetition_penalty": self._sampling.repetition_penalty,
            # One seed per request: vLLM creates a generator per request, and equal noise would favour the same tokens
            # at the start of principles, critique and verdict.
            "seed": derive_seed(self._seed, self._requests),
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        if pattern is not None:
            return SamplingParams(
                **common,
                max_tokens=max_tokens,
                logprobs=_LOGPROBS,
                structured_outputs=StructuredOutputsParams(regex=pattern),
            )
        return SamplingParams(
            **common,
            max_tokens=_align_to_block(max_tokens, context_tokens, self._block_size),
            stop=list(stops),
            stop_token_ids=list(self._chat.control_ids),
        )


@dataclass(frozen=True, slots=True)
class _End:
    """How the segment before ended."""

    marked: bool
    skipped: bool = False
    """It was optional and not written."""
    begun: str = ""
    """What the model wrote instead of it: the beginning of the next segment."""
    is_over: bool = False
    """And then its turn ended."""


@dataclass(frozen=True, slots=True)
class _Probe:
    result: RequestOutput
    opened: bool
    text: str = ""
    is_over: bool = False


def verdict_tokens(output: CompletionOutput) -> tuple[VerdictToken, ...]:
    tokens = []
    for token_id, candidates in zip(output.token_ids, output.logprobs or (), strict=False):
        logprobs = {c.decoded_token or "": c.logprob for c in candidates.values() if math.isfinite(c.logprob)}
        tokens.append(VerdictToken(candidates[token_id].decoded_token or "", logprobs))
    return tuple(tokens)


def _ten_or(end: str) -> str:
    """What may follow a "1"."""
    return f"(0|{re.escape(end)})" if end else "0?"


def _earliest(text: str, marks: tuple[str, ...]) -> int | None:
    found = [at for mark in marks if (at := text.find(mark)) >= 0]
    return min(found, default=None)


def _align_to_block(max_tokens: int, context_tokens: int, block_size: int) -> int:
    """Shrink a budget by less than a block, so a text cut off at the budget ends at a block boundary.

    The continuation then finds the whole text in the prefix cache and computes only its lead. The last token does not
    count: the engine draws it but does not compute it. Small budgets are unchanged.
    """
    if max_tokens < 2 * block_size:
        return max_tokens
    return max_tokens - (context_tokens + max_tokens - 1) % block_size
