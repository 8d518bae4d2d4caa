"""From text to the model's tokens, with its own chat template around it and no control token inside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from grm_server.errors import InvalidRequest

_CONTENT = "GRM-CONTENT-7b1f"
_ROUNDS = 8
_LETTERS = 4
"""Of a token, about. Shorter texts are encoded at once."""
_CUT = 8


class ChatEncoder:
    """Encodes one user turn and continuations of the assistant's answer to it.

    The chat template is rendered once, around a placeholder; what stands before and after it is encoded as it is, and
    the text in between on its own, so that nothing in the text can be read together with the template. Control tokens
    are those that the tokenizer marks special and those that the chat template itself uses; where the tokenizer would
    map a piece of text to one of them, in whatever spelling, the piece is broken up with a space.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = template = getattr(tokenizer, "chat_template", None) or ""
        before, after = "", "\n"
        if template:
            turn = [{"role": "user", "content": _CONTENT}]
            rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            if rendered.count(_CONTENT) != 1:
                raise ValueError("the model's chat template does not show the user's message exactly once")
            before, after = rendered.split(_CONTENT)
        self._before, self._after = self._encode(before), self._encode(after)
        added = dict(tokenizer.added_tokens_decoder)
        named = set(tokenizer.all_special_ids)
        if str(tokenizer.unk_token) not in template and tokenizer.unk_token_id != tokenizer.eos_token_id:
            # Where it steers nothing, it is what an unknown character becomes.
            named.discard(tokenizer.unk_token_id)
            added.pop(tokenizer.unk_token_id, None)
        self.control_ids = frozenset(named) | {
            token
            for token, entry in added.items()
            if entry.special or (len(entry.content.strip()) > 2 and entry.content in template)
        }
        """Tokens that steer the model. A sample that writes one has ended its turn."""
        if self.control_ids and not tokenizer.is_fast:
            raise ValueError(
                "the model's tokenizer has no fast version, without which hostile text cannot be made safe"
            )
        # Templates older than control tokens mark turns in plain text: [INST], ### Response:
        steering = re.compile("|".join(re.escape(added[t].content) for t in self.control_ids if t in added) or r"(?!)")
        last_before = steering.split(before)[-1].strip().rpartition("\n")[2]
        first_after = steering.split(after)[0].strip().partition("\n")[0]
        self._markers = tuple(marker for marker in (last_before, first_after) if _is_marker(marker))

    def prompt(self, text: str, most: int | None = None) -> list[int]:
        """The whole prompt: template, text as the user's turn, start of the assistant's turn. `most`: see `text`."""
        return [*self._before, *self.text(text, most), *self._after]

    def answered(self, answer: str) -> list[int]:
        """What follows a `prompt` that was answered so, the end of the turn included."""
        return [*self.text(answer), *self._end]

    def text(self, text: str, most: int | None = None) -> list[int]:
        """The text as plain text: no id in the result is a control token. Raises InvalidRequest if that cannot be.

        most: the tokens that the caller has room for. Of a text that has more only a beginning is encoded, which has
        more as well: four million letters would take half a minute.
        """
        if most is not None:
            text = self._beginning(text, most)
        for marker in self._markers:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        for _ in range(_ROUNDS):
            ids = self._encode(text)
            if self.control_ids.isdisjoint(ids):
                return ids
            text = self._break_up(text)
        raise InvalidRequest("a text holds characters that the model's tokenizer turns into control tokens")

    def decode(self, context: Sequence[int], ids: Sequence[int]) -> str:
        """The text of `ids` as it reads after `context`; some tokenizers drop the space before a first word."""
        anchor = list(context[-4:])
        return self._decode([*anchor, *ids])[len(self._decode(anchor)) :]

    def kept(self, context: Sequence[int], ids: Sequence[int], text: str) -> list[int]:
        """The tokens that `text` was read from: `ids` without an end of turn and without a stop mark that was cut off.

        Keeps the model's own tokens where it can, because those are in the prefix cache.
        """
        kept = list(ids)
        while kept and kept[-1] in self.control_ids:
            kept.pop()
        while kept and len(self.decode(context, kept)) > len(text):
            kept.pop()
        return kept + self.text(text[len(self.decode(context, kept)) :])

    @cached_property
    def _end(self) -> list[int]:
        """What the chat template puts after an answer. A judge's need not know how to."""
        if not self._template:
            return []
        turns = [{"role": "user", "content": _CONTENT}, {"role": "assistant", "content": _CONTENT}]
        rendered = str(self._tokenizer.apply_chat_template(turns, tokenize=False))
        return self._encode(rendered.rpartition(_CONTENT)[2])

    def _beginning(self, text: str, most: int) -> str:
        """The text, or so much of it that it has more than `most` tokens."""
        length = _LETTERS * most
        while length < len(text):
            # Where it is cut, a token or two more may be there than in the whole.
            if len(self._encode(text[:length])) > most + _CUT:
                return text[:length]
            length *= 2
        return text

    def _break_up(self, text: str) -> str:
        """Put a space into every piece of the text that encodes to a control token."""
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


def _is_marker(text: str) -> bool:
    """Whether a piece of a chat template marks a turn, unlike a role's name or a sentence of a system prompt."""
    return 0 < len(text.split()) <= 3 and not text[-1].isalnum()
