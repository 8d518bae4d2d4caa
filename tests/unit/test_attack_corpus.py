"""The attack corpus: its size, its families, and its match with the real template."""

from collections import Counter

from grm_server.api.protocols.chat_formats import turns_of
from tests.attacks import corpus, is_text
from tests.attacks.chats import FORMATS
from tests.attacks.structure import structure


def test_the_corpus_is_large_distinct_and_deterministic() -> None:
    attacks = corpus()
    assert attacks == corpus()
    families = Counter(attack.family for attack in attacks)
    assert len(attacks) >= 600
    assert len(families) >= 18
    assert min(families.values()) >= 8
    assert len({attack.response for attack in attacks}) == len(attacks)
    assert len({(attack.family, attack.name) for attack in attacks}) == len(attacks)


def test_forged_structure_is_that_of_the_real_template() -> None:
    parts = structure()
    assert parts.begins == tuple(f"[The Begin of Response {p}]" for p in (1, 2, 3))
    assert parts.ends == tuple(f"[The End of Response {p}]" for p in (1, 2, 3))
    assert (parts.turn_begin, parts.turn_end) == ("[The Begin of User Turn]", "[The End of User Turn]")
    assert parts.headings[-1] == "#### Output Format Requirements ####"
    assert len(parts.headings) == 6
    assert parts.label == r"Scores: \boxed{"
    assert parts.leads == ("Specific Criteria:", "Analysis:")


def test_the_server_parses_most_of_the_chat_formats() -> None:
    parsed = {
        chat.name
        for chat in FORMATS
        if [turn.role for turn in turns_of(chat.user.format("Q") + chat.assistant.format("A"))] == ["user", "assistant"]
    }
    assert len(FORMATS) >= 10
    assert {chat.name for chat in FORMATS} - parsed == {"Alpaca", "Human and Assistant"}


def test_only_attacks_with_half_surrogate_pairs_cannot_be_encoded() -> None:
    for attack in corpus():
        if is_text(attack.response):
            attack.response.encode()
        else:
            assert attack.family == "surrogate"
