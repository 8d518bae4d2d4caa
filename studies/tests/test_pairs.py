"""The simulated comparisons, and the promise of `decided` on a few prompts."""

import numpy as np
import pytest

from studies.judges import JUDGES
from studies.pairs.judges import ballots, simulate_groups, true_prior
from studies.pairs.runs import decided, looks, ring_and_pivots


def test_winners_ties_and_preferences() -> None:
    shown = np.array([[7.0, 5.0], [5.0, 6.0], [5.0, 7.0], [np.nan, np.nan]])
    assert ballots(shown, np.zeros(4), "winners")[:3].tolist() == [[10, 1], [5.5, 5.5], [1, 10]]
    assert ballots(shown, np.zeros(4), "preferences")[:3].tolist() == [[8.5, 2.5], [5.5, 5.5], [4, 7]]
    assert np.isnan(ballots(shown, np.zeros(4), "winners")[3]).all()


@pytest.mark.parametrize("kind", ["winners", "singles"])
def test_decided_stops_early_and_its_audit_mostly_agrees(kind: str) -> None:
    rng = np.random.default_rng(0)
    prior = true_prior(simulate_groups(JUDGES["A"], 2, 64, 200, rng), kind)  # type: ignore[arg-type]
    groups = simulate_groups(JUDGES["A"], 5, 320, 40, rng)
    runs = [decided(groups, prompt, kind, 32, prior, 0.05) for prompt in range(40)]  # type: ignore[arg-type]
    early = [(look, audited) for look, audited in runs if look.rounds < 32]
    assert len(early) > 10
    assert sum(look.best != audited for look, audited in early) <= 2
    whole = looks(groups, 0, kind, 32, prior)  # type: ignore[arg-type]
    assert whole[-1].risk == 0
    assert np.mean([look.samples for look, _ in runs]) < 0.8 * whole[-1].samples


def test_the_pivot_tournament_costs_what_it_says() -> None:
    groups = simulate_groups(JUDGES["A"], 8, 200, 1, np.random.default_rng(1))
    assert ring_and_pivots(groups, 0, "winners", 2, 1).samples == 8 + 2 * 6 + 1
