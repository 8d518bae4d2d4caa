"""A meta RM on another server: vLLM's `/classify` or `/pooling`, or SGLang's `/classify`.

We send tokens, not text, so every server sees the same input and no text can become a control token.

Untested against live servers: `/pooling` and SGLang were only tested with recorded answers.
"""

from __future__ import annotations

from typing import Any

import httpx

from grm_server.engine.protocol import Rating
from grm_server.engine.tokens import ChatEncoder
from grm_server.errors import MetaRMFailed
from grm_server.meta_rm.probability import as_probability, check_length
from grm_server.settings import MetaRMSettings


class RemoteMetaRM:
    """One HTTP request per sample, over keep-alive connections; the other server does the batching."""

    def __init__(
        self, settings: MetaRMSettings, url: str, model: str, chat: ChatEncoder, platt: tuple[float, float]
    ) -> None:
        self.model = model
        self._remote_name = settings.model
        """Name of the model on the other server."""
        self._url = url
        self._sglang = settings.api == "sglang"
        self._chat = chat
        self._platt = platt
        self._max_tokens = settings.max_model_len
        # No limit on connections: the other server has its own queue.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_num_seqs)
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.timeout_s, connect=min(5.0, settings.timeout_s)),
            transport=httpx.AsyncHTTPTransport(retries=1, limits=limits),
        )

    def raise_if_unavailable(self) -> None:
        """Never raises: the state of the other server is unknown until a request."""

    def prepare(self, prompt: str) -> tuple[int, ...]:
        return check_length(self._chat.prompt(prompt), self._max_tokens)

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        ids = check_length([*prompt, *self._chat.assistant_turn(answer)], self._max_tokens)
        try:
            response = await self._http.post(self._url, json=self._body(list(ids)))
            response.raise_for_status()
            logits = self._logits(response.json())
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise MetaRMFailed(f"the meta RM's server returned {status} for model {self._remote_name}") from error
        except httpx.HTTPError as error:
            raise MetaRMFailed(f"the meta RM's server cannot be reached: {type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise MetaRMFailed(
                f"the meta RM's answer does not have the format of meta_rm.api: {type(error).__name__}"
            ) from error
        return Rating(as_probability(logits, self._platt), len(ids))

    def _body(self, ids: list[int]) -> dict[str, Any]:
        if self._sglang:
            return {"model": self._remote_name, "input_ids": ids}
        body = {"model": self._remote_name, "input": ids, "use_activation": False}
        return body | {"task": "classify"} if self._url.rstrip("/").endswith("/pooling") else body

    def _logits(self, answer: Any) -> list[float]:
        if self._sglang:
            logits = (answer[0] if isinstance(answer, list) else answer)["embedding"]
        else:
            row = answer["data"][0]
            # With `use_activation` off, the `probs` of /classify are logits.
            logits = row["probs"] if "probs" in row else row["data"]
        return [float(logit) for logit in logits]

    async def close(self) -> None:
        await self._http.aclose()


def connect(settings: MetaRMSettings, url: str, served_name: str, platt: tuple[float, float]) -> RemoteMetaRM:
    """Load the tokenizer. The other server may still be down."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer or settings.model or served_name)
    return RemoteMetaRM(settings, url, served_name, ChatEncoder(tokenizer), platt)
