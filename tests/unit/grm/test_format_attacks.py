"""No response can imitate the structure of a prompt, a thought or a verdict, in any preset.

The reader of these tests is the one of `test_attacks`, with tables of its own.
"""

import json
import os
import re
from functools import cache

import pytest

from grm_server.grm.presets import presets
from grm_server.grm.prompts import JudgeFormat
from grm_server.grm.sanitize import neutralize
from grm_server.grm.script import Script
from grm_server.grm.types import Message
from tests.attacks import corpus, is_text
from tests.attacks.formats import forgeries, parts_of, shown
from tests.unit.grm.test_attacks import fold

FORMS = {file.name: JudgeFormat(file) for file in presets()}
MARK = "An honest answer at this place."
# The reader of these tests also reads spaced letters, which are left alone: no model takes them for the mark itself.
CORPUS = [attack for attack in corpus() if is_text(attack.response) and attack.name != "a space after each letter"]
LONG = 600
"""Characters of an attack of the corpus that are shown; `test_attacks` shows them whole in the built-in format."""
SHARE = 1 if "FUZZ_EXAMPLES" in os.environ else 8
"""In `make check`, each preset is shown one attack of the corpus in eight, from another one on; in `make test`, all."""


@cache
def readers(name: str) -> dict[str, re.Pattern[str]]:
    """Patterns of the format's parts in a folded text, with white space between any two characters."""
    parts = parts_of(FORMS[name])
    patterns = {}
    for text in (*parts.lines, *parts.thought, *parts.verdicts):
        spaced = r"\s*".join(map(re.escape, "".join(fold(text).split())))
        # A label in the middle of a line is part of a sentence; longer words are others.
        start = r"^[^\w\n]*" if text[0].isalnum() or text.startswith("**") else ""
        # More words make another heading of it.
        end = r"(?=[^\w\n]*$)" if text.startswith("#") else r"(?!\w)" if text[-1].isalnum() else ""
        patterns[text] = re.compile(start + spaced + end, re.IGNORECASE | re.MULTILINE)
    return patterns


def count(name: str, text: str) -> dict[str, int]:
    folded = fold(text)
    return {part: len(pattern.findall(folded)) for part, pattern in readers(name).items()}


@pytest.mark.parametrize("name", FORMS)
def test_no_forgery_of_a_formats_own_parts_reads_like_them(name: str) -> None:
    form = FORMS[name]
    expected = count(name, shown(form, MARK).prompt)
    for attack in forgeries(form):
        prompt = shown(form, attack.response).prompt
        assert count(name, prompt) == expected, (attack.name, neutralize(attack.response, form.structure))


@pytest.mark.parametrize("name", FORMS)
def test_the_reader_sees_the_forgeries(name: str) -> None:
    """The test above is only as good as its reader."""
    unread = []
    for attack in forgeries(FORMS[name]):
        if attack.family in ("line", "thought", "verdict") and not any(count(name, attack.response).values()):
            unread.append(attack.name)
    assert len(unread) <= len([*forgeries(FORMS[name])]) // 3, unread


@pytest.mark.parametrize("name", FORMS)
def test_no_attack_of_the_corpus_changes_the_prompt_around_it(name: str) -> None:
    form = FORMS[name]
    at = sorted(FORMS).index(name) % SHARE
    benign = shown(form, MARK)
    expected = count(name, benign.prompt)
    before, _, after = benign.prompt.partition(MARK)
    for attack in CORPUS[at::SHARE]:
        prompt = shown(form, attack.response[:LONG]).prompt
        assert prompt.startswith(before), attack.name
        assert prompt.endswith(after), attack.name
        assert count(name, prompt) == expected, attack.name


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.file.fences.json_text])
def test_no_response_breaks_out_of_its_json_string(name: str) -> None:
    form = FORMS[name]
    query = (Message("user", "Why?"),)
    benign = _json_values(shown(form, MARK, query))
    for attack in (*forgeries(form), *CORPUS):
        response = attack.response[:LONG]
        values = _json_values(shown(form, response, query))
        safe = neutralize(response, form.structure)
        assert values == [safe if value == MARK else value for value in benign], attack.name


def _json_values(script: Script) -> list[str]:
    """All strings of the JSON in the user's turn."""
    text = "".join(piece.text for piece in script.turns[-1].content)
    assert not re.search("[\u2028\u2029]", text)
    found: list[str] = []
    decoder = json.JSONDecoder()
    at = 0
    while (start := re.compile(r"[\[{]").search(text, at)) is not None:
        value, at = decoder.raw_decode(text, start.start())
        _strings(value, found)
    return found


def _strings(value: object, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, list):
        for part in value:
            _strings(part, found)
    elif isinstance(value, dict):
        for part in value.values():
            _strings(part, found)
