"""All attacks, by family."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.attacks import chats, forgeries, oddities, persuasion
from tests.attacks.types import Attack

_FAMILIES: tuple[Callable[[], Iterator[Attack]], ...] = (
    forgeries.fence_spellings,
    forgeries.fence_orders,
    forgeries.headings,
    forgeries.near_fences,
    forgeries.near_headings,
    forgeries.other_lines,
    forgeries.verdicts,
    forgeries.whole_verdicts,
    forgeries.boxes,
    chats.role_markers,
    chats.special_tokens,
    oddities.empties,
    oddities.controls,
    oddities.surrogates,
    oddities.bidirectional,
    oddities.runs,
    oddities.bursts,
    persuasion.instructions,
    persuasion.self_praise,
    persuasion.one_token,
    persuasion.constants,
)


def corpus() -> tuple[Attack, ...]:
    """All attacks, in a fixed order, without duplicate responses."""
    attacks: dict[str, Attack] = {}
    for family in _FAMILIES:
        for attack in family():
            attacks.setdefault(attack.response, attack)
    return tuple(attacks.values())


def is_text(response: str) -> bool:
    """Whether the response can be encoded as UTF-8; half of a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in response)
