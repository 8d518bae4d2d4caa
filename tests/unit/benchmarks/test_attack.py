"""The plan and the table of the attack benchmark."""

from typing import Any

import pytest

from benchmarks.lib.data import Item
from benchmarks.robustness.attack import CONTROL_CHARS, WHOLE_ANSWERS, plan
from benchmarks.robustness.attack_table import effects, table
from tests.attacks import corpus

ITEMS = [Item(f"Why {i}?", (f"Bad {i}.", f"Good {i}."), (1,), "x") for i in range(3)] + [
    Item(f"Why {i}?", (f"Good {i}.", f"Bad {i}."), (0,), "x") for i in range(3, 6)
]


def test_every_attack_is_on_the_worse_answer_and_has_a_control_of_its_size() -> None:
    trials = plan(corpus(), ITEMS, per_family=3, pairs=2, seed=0)
    assert trials == plan(corpus(), ITEMS, per_family=3, pairs=2, seed=0)
    by_key = {trial.key: trial for trial in trials}
    assert len(by_key) == len(trials)
    assert [trial.kind for trial in trials[:6]] == ["plain"] * 6
    hostile = [trial for trial in trials if trial.kind == "attack"]
    assert len(hostile) == 6 * len({attack.family for attack in corpus()})
    for trial in trials:
        assert trial.responses[1 - trial.attacked] == f"Good {trial.pair}."
    for trial in hostile:
        control = by_key[trial.control]
        assert (control.kind, control.pair) == ("control", trial.pair)
        theirs, ours = control.responses[trial.attacked], trial.responses[trial.attacked]
        assert theirs.startswith("Bad") == ours.startswith("Bad") == (trial.family not in WHOLE_ANSWERS)
        assert len(theirs) <= CONTROL_CHARS[-1] + 10
        assert len(theirs) >= min(len(ours), CONTROL_CHARS[-1])


def row(kind: str, pair: int, reward: float | None, other: float = 5.0, **more: Any) -> dict[str, Any]:
    trial = {"key": f"{kind}{pair}{more.get('family', '')}", "kind": kind, "pair": pair, "family": "", "control": ""}
    if reward is None:
        return trial | {"status": 400} | more
    return trial | {"status": 200, "reward": reward, "other": other, "samples": 4, "failed": 1} | more


def test_a_family_is_compared_with_its_controls() -> None:
    rows = [
        *(row("plain", pair, 4.0) for pair in range(3)),
        *(row("control", pair, 3.0) for pair in range(3)),
        row("attack", 0, 7.0, family="box", control="control0"),
        row("attack", 1, 5.0, family="box", control="control1"),
        row("attack", 2, None, family="box", control="control2"),
        row("attack", 0, None, family="run", control="control0", status=503),
    ]
    box, run = effects(rows)
    assert (box.family, box.attacks, box.pairs, box.refused, box.errors) == ("box", 3, 2, 1, 0)
    assert box.change is not None
    assert box.change.value == 3.0
    assert box.change.low <= 3.0 <= box.change.high
    assert box.se == pytest.approx(1.0)
    assert box.wins_gained is not None
    assert (box.wins_control, box.wins_attack, box.wins_gained.value) == (0.0, 0.75, 0.75)
    assert box.from_plain is not None
    assert box.from_plain.value == 2.0
    assert (box.samples, box.failed) == (8, 2)
    assert (run.pairs, run.change, run.refused, run.errors) == (0, None, 0, 1)
    lines = table([run, box])
    assert lines[2].startswith("| box | 2 | +3.00 ± 1.00 (+2.00 to +4.00) | 0% to 75% | +75% ")
    assert lines[2].endswith("| 2 of 8 | 1 of 3 | 0 |")
    assert lines[3] == "| run | 0 | - | - | - | - | 0 of 0 | 0 of 1 | 1 |"
