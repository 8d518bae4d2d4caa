"""Text to tokens: the model's chat template around the text, and no control token inside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from grm_server.engine.round_trip import check_round_trip
from grm_server.errors import InvalidRequest

_CONTENT = "GRM-CONTENT-7b1f"
_ROUNDS = 8
_CHARS_PER_TOKEN = 4
"""Rough average, for the first guess of how long a prefix to encode."""
_CUT_MARGIN = 8
"""Cutting a text in the middle of a word may add a few tokens."""


class ChatEncoder:
    """Encodes one user turn, and continuations of the assistant's turn.

    We render the chat template once around a placeholder, and encode the parts before and after it. The text is encoded
    separately, so no token can span text and template. Control tokens are those that the tokenizer marks as special and
    those that the chat template uses. If the tokenizer maps a piece of the text to a control token, in any spelling, we
    break up the piece with a space.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """template: the chat template, in Jinja. None: the tokenizer's; without one, prompts have no turns.

        Raises ValueError for a template that does not show the user's message, and for a tokenizer that loses text or
        cannot keep control tokens out of it.
        """
        self._tokenizer = tokenizer
        check_round_trip(lambda text: self._decode(self._encode(text)))
        self._template = template = template or chat_template_of(tokenizer)
        before, after = "", "\n"
        if template:
            turn = [{"role": "user", "content": _CONTENT}]
            rendered = self._render(turn, add_generation_prompt=True)
            if rendered.count(_CONTENT) != 1:
                raise ValueError("the model's chat template does not show the user's message exactly once")
            before, after = rendered.split(_CONTENT)
        self._before, self._after = self._encode(before), self._encode(after)
        added = dict(tokenizer.added_tokens_decoder)
        named = set(tokenizer.all_special_ids)
        if str(tokenizer.unk_token) not in template and tokenizer.unk_token_id != tokenizer.eos_token_id:
            # If the template does not use it, it only stands for unknown characters and controls nothing.
            named.discard(tokenizer.unk_token_id)
            added.pop(tokenizer.unk_token_id, None)
        self.control_ids = frozenset(named) | {
            token
            for token, entry in added.items()
            if entry.special or (len(entry.content.strip()) > 2 and entry.content in template)
        }
        """Tokens that control the model. A sample that generates one has ended its turn."""
        if self.control_ids and not tokenizer.is_fast:
            raise ValueError(
                "the model's tokenizer has no fast version, which is required to keep control tokens out of user text"
            )
        # Templates older than control tokens mark turns with plain text: [INST], ### Response:
        steering = re.compile("|".join(re.escape(added[t].content) for t in self.control_ids if t in added) or r"(?!)")
        last_before = steering.split(before)[-1].strip().rpartition("\n")[2]
        first_after = steering.split(after)[0].strip().partition("\n")[0]
        self._markers = tuple(marker for marker in (last_before, first_after) if _is_marker(marker))

    def prompt(self, text: str, limit: int | None = None) -> list[int]:
        """The whole prompt: template, text as the user turn, start of the assistant turn. `limit`: see `text`."""
        return [*self._before, *self.text(text, limit), *self._after]

    def assistant_turn(self, answer: str) -> list[int]:
        """The tokens of an answer to `prompt`, including the end of the turn."""
        return [*self.text(answer), *self._end]

    def text(self, text: str, limit: int | None = None) -> list[int]:
        """The text as plain tokens, none of them a control token. Raises InvalidRequest if that is impossible.

        limit: number of tokens that the caller has room for. If the text has more, we encode only a prefix that also
        exceeds the limit: encoding four million characters would take half a minute.
        """
        if limit is not None:
            text = self._prefix(text, limit)
        for marker in self._markers:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        for _ in range(_ROUNDS):
            ids = self._encode(text)
            if self.control_ids.isdisjoint(ids):
                return ids
            text = self._break_up(text)
        raise InvalidRequest("a text contains characters that the model's tokenizer turns into control tokens")

    def decode(self, context: Sequence[int], ids: Sequence[int]) -> str:
        """The text of `ids` after `context`. Without context, some tokenizers drop the space before the first word."""
        anchor = list(context[-4:])
        return self._decode([*anchor, *ids])[len(self._decode(anchor)) :]

    def ids_of_text(self, context: Sequence[int], ids: Sequence[int], text: str) -> list[int]:
        """The part of the generated `ids` that makes up `text`: without an end of turn, and without a stop string.

        Reuses the generated tokens where possible, because they are in the prefix cache.
        """
        result = list(ids)
        while result and result[-1] in self.control_ids:
            result.pop()
        while result and len(self.decode(context, result)) > len(text):
            result.pop()
        return result + self.text(text[len(self.decode(context, result)) :])

    @cached_property
    def _end(self) -> list[int]:
        """Template tokens after an answer. Lazy: a judge does not need them, and its template may not support them."""
        if not self._template:
            return []
        turns = [{"role": "user", "content": _CONTENT}, {"role": "assistant", "content": _CONTENT}]
        return self._encode(self._render(turns).rpartition(_CONTENT)[2])

    def _render(self, turns: list[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt, chat_template=self._template
            )
        )

    def _prefix(self, text: str, limit: int) -> str:
        """The text, or a prefix with more than `limit` tokens."""
        length = _CHARS_PER_TOKEN * limit
        while length < len(text):
            if len(self._encode(text[:length])) > limit + _CUT_MARGIN:
                return text[:length]
            length *= 2
        return text

    def _break_up(self, text: str) -> str:
        """Insert a space into every piece of the text that encodes to a control token."""
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        parts, end = [], 0
        for token, (start, stop) in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
            if token in self.control_ids and end <= start < stop:
                word = text[start:stop].strip()
                parts += [text[end:start], f" {word[:1]} {word[1:]}" if len(word) > 1 else "\ufffd"]
                end = stop
        return "".join((*parts, text[end:]))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def chat_template_of(tokenizer: Any) -> str:
    """The tokenizer's own chat template; empty without one. Of several named templates, the default."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return str(template.get("default", "") if isinstance(template, dict) else template)


def _is_marker(text: str) -> bool:
    """Whether a piece of a chat template marks a turn. A role name or a sentence of a system prompt does not."""
    return 0 < len(text.split()) <= 3 and not text[-1].isalnum()
