"""Check that a tokenizer keeps text: a checkpoint's tokenizer may load wrongly without an error."""

from __future__ import annotations

from collections.abc import Callable

_SAMPLES = {
    "spaces": "Two words,  two spaces,   three spaces.",
    "lines and tabs": "First line.\nSecond line.\n\n\tIndented.",
    "accents": "Caf\u00e9 na\u00efve \u010de\u0161tina \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u043c\u0438\u0440",
    "CJK": "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587\u3001\u4e2d\u6587\u8bc4\u5206\u3002 \ud55c\uad6d\uc5b4",
    "emoji": "Good \U0001f44d\U0001f3fd, a family \U0001f468\u200d\U0001f469\u200d\U0001f467 and a heart \u2764\ufe0f",
    "code": "def f(x: int) -> str:\n    return f\"{x!r}\\n\" if x != 0 else '\\\\t'  # 100%",
    "mathematics": "\\boxed{10, 7} and $a_1 \\le b^2$ [1] #### 42",
    "right-to-left": "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea",
}
"""By kind, in Unicode's composed form (NFC), as many tokenizers normalise text to it."""


def check_round_trip(round_trip: Callable[[str], str]) -> None:
    """Raise ValueError if encoding and decoding a sample text loses any of it, except for spaces at its start.

    Some tokenizers drop control characters, which `grm.sanitize` removes anyway; the samples contain none.
    """
    lost = [kind for kind, text in _SAMPLES.items() if round_trip(text).lstrip(" ") != text]
    if lost:
        raise ValueError(
            f"the model's tokenizer loses text ({', '.join(lost)}), so the model would not see what it should read: "
            "its class may not fit its file. Set tokenizer_class in tokenizer_config.json to PreTrainedTokenizerFast, "
            "which uses tokenizer.json as it is, or copy the tokenizer's files from the original checkpoint"
        )
