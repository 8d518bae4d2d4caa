"""The linear head: it finds planted signals, and its card does not claim more than it measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grm_server.grm.types import Bools, Floats, Ints
from grm_server.meta_rm.card import MetaCard
from grm_train.meta_rm.baselines import length_features, logit_features
from grm_train.meta_rm.head import Examples, choose, fits, logistic, platt
from grm_train.meta_rm.measure import Table, measure, tabulate
from grm_train.meta_rm.model_card import verdict
from grm_train.meta_rm.quality import group_aucs
from grm_train.meta_rm.trajectories import Trajectory

DIMENSION = 12
REQUESTS, EACH = 400, 4


def trajectories(rng: np.random.Generator, right: Bools, critique_lengths: Ints) -> list[Trajectory]:
    return [
        Trajectory(
            line=index // EACH,
            query=f"query {index // EACH}",
            order=(0, 1),
            user="",
            answer="",
            right=bool(good),
            shown=((7, 4), (4, 7))[rng.integers(2)],
            expected_last=None,
            lengths=(20, int(length), 30, 40),
        )
        for index, (good, length) in enumerate(zip(right, critique_lengths, strict=True))
    ]


def trained(table: Table, features: Floats) -> MetaCard:
    head = choose(table.examples(features, "train"), table.examples(features, "selection"), 0)
    quality = measure(table, features[:, head.layer] @ head.weight)
    about = {"data": "d", "base": "b", "judge": "j", "method": "head", "template_sha256": "0", "version": "0"}
    return MetaCard.model_validate(
        quality.all.model_dump()
        | about
        | {"untied": quality.untied, "platt": quality.platt, "ece": quality.ece, "layers": 1, "seed": 0}
        | {"prompts": REQUESTS, "trajectories": len(features), "held_out": 0.2}
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def right(rng: np.random.Generator) -> Bools:
    draws: Bools = rng.random(REQUESTS * EACH) < 0.5
    return draws


def noise(rng: np.random.Generator) -> Floats:
    """(m, 2 layers, d), with a strong component that all trajectories of a request share."""
    own = rng.normal(size=(REQUESTS * EACH, 2, DIMENSION))
    return own + np.repeat(rng.normal(size=(REQUESTS, 2, DIMENSION)) * 3, EACH, axis=0)


def test_a_planted_signal_is_found_in_its_layer(rng: np.random.Generator, right: Bools) -> None:
    features = noise(rng)
    features[:, 1, 3] += 2.0 * right
    table = tabulate(trajectories(rng, right, rng.integers(100, 900, len(right))), 0)
    head = choose(table.examples(features, "train"), table.examples(features, "selection"), 0)
    assert head.layer == 1
    assert np.abs(head.weight).argmax() == 3
    card = trained(table, features)
    assert card.auc > 0.8
    assert card.passes
    assert card.untied is not None
    assert card.ece < 0.1
    assert card.auc_interval[0] < card.auc < card.auc_interval[1]
    assert verdict(card) == "It passes the gate."


def test_a_meta_rm_that_only_measures_length_fails_the_gate(rng: np.random.Generator, right: Bools) -> None:
    lengths = np.where(right, 400, 300) + rng.integers(-100, 100, len(right))
    features = noise(rng)
    features[:, 0, 5] += lengths / 50
    table = tabulate(trajectories(rng, right, lengths), 0)
    card = trained(table, features)
    assert card.auc > 0.55
    assert not card.passes
    assert "no better than that of lengths alone" in card.shortfalls[0]
    assert "WEAK" in verdict(card)
    assert "lengths alone" in verdict(card)


def test_shuffled_labels_fail(rng: np.random.Generator, right: Bools) -> None:
    features = noise(rng)
    features[:, 1, 3] += 2.0 * right
    rng.shuffle(right)
    table = tabulate(trajectories(rng, right, rng.integers(100, 900, len(right))), 0)
    card = trained(table, features)
    assert not card.passes
    assert "is below 0.55" in card.shortfalls[0]


def test_the_scale_of_features_is_folded_into_the_weight(rng: np.random.Generator) -> None:
    """The head ranks like sklearn's decision function on standardised features; Platt's b absorbs the intercept."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = rng.normal(size=(400, DIMENSION)) * np.logspace(-2, 2, DIMENSION) + 5
    y = rng.random(400) < 1 / (1 + np.exp(-(x[:, 6] - 5)))
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(x, y)
    weight = logistic((x - x.mean(axis=0)) / x.std(axis=0), y, 0.1) / x.std(axis=0)
    shift = scaled.decision_function(x) - x @ weight
    assert np.ptp(shift) < 1e-6


def test_platt_finds_the_scale(rng: np.random.Generator) -> None:
    logits = rng.normal(size=20000) * 30 + 100
    right = rng.random(20000) < 1 / (1 + np.exp(-(0.1 * logits - 9)))
    a, b = platt(logits, right)
    assert (a, b) == (pytest.approx(0.1, rel=0.1), pytest.approx(-9, rel=0.1))


def test_constant_features_give_an_auc_of_one_half(rng: np.random.Generator, right: Bools) -> None:
    same = np.ones((len(right), 1, 3))
    examples = Examples(same, right, np.repeat(np.arange(REQUESTS), EACH))
    head = choose(examples, examples, 0)
    assert group_aucs(same[:, 0] @ head.weight, right, examples.groups).mean() == 0.5


def test_progress_is_reported(rng: np.random.Generator, right: Bools) -> None:
    steps: list[int] = []
    examples = Examples(noise(rng), right, np.repeat(np.arange(REQUESTS), EACH))
    choose(examples, examples, 0, steps.append)
    assert sum(steps) == fits(2)


def test_each_part_needs_requests_with_both_kinds(rng: np.random.Generator) -> None:
    everything = np.ones(REQUESTS * EACH, dtype=np.bool_)
    with pytest.raises(ValueError, match=r"train split has 0 prompts with both.*grm collect -n"):
        tabulate(trajectories(rng, everything, rng.integers(1, 9, len(everything))), 0)


@pytest.mark.parametrize(
    ("shown", "lengths", "longer"),
    [
        ((7, 4), (9, 9, 30, 10), np.log(31 / 11)),
        ((4, 7), (9, 9, 30, 10), np.log(11 / 31)),
        # The geometric mean of the others.
        ((1, 9, 2), (9, 9, 7, 99, 1), np.log(100 / 4)),
        ((7, 7), (9, 9, 30, 10), 0.0),
        ((7,), (9, 9, 30), 0.0),
    ],
)
def test_length_features_include_whether_the_longer_response_is_preferred(
    shown: tuple[int, ...], lengths: tuple[int, ...], longer: float
) -> None:
    trajectory = one(shown, lengths, None)
    assert length_features([trajectory])[0, -1] == pytest.approx(longer)


def one(shown: tuple[int, ...], lengths: tuple[int, ...], expected_last: float | None) -> Trajectory:
    return Trajectory(
        line=1,
        query="",
        order=tuple(range(len(shown))),
        user="",
        answer="",
        right=True,
        shown=shown,
        expected_last=expected_last,
        lengths=lengths,
    )


def test_the_judges_own_probability_of_its_last_score_is_a_baseline() -> None:
    certain, uncertain, unknown = (one((7, 4), (1, 1, 1, 1), last) for last in (4.25, 5.5, None))
    last_preferred = one((3, 8), (1, 1, 1, 1), 6.5)
    features = logit_features([certain, uncertain, unknown, last_preferred])
    assert features is not None
    margin, luck, last, mean = features.T
    assert margin == pytest.approx([2.75, 1.5, 3.0, 3.5])
    assert luck == pytest.approx([-0.25, -1.5, 0.0, 1.5])
    assert last == pytest.approx([4.25, 5.5, 4.0, 6.5])
    assert mean == pytest.approx([5.625, 6.25, 5.5, 4.75])
    assert logit_features([unknown, unknown]) is None


def test_the_logit_baseline_finds_what_scores_do_not_show() -> None:
    """Trajectories whose last score is above its expectation are wrong: only the probabilities show it."""
    rng = np.random.default_rng(7)
    right = rng.random(REQUESTS * EACH) < 0.5
    expected = np.where(right, 5.0, 3.0)
    known = [
        replace(trajectory, shown=(7, 4), expected_last=float(value))
        for trajectory, value in zip(trajectories(rng, right, np.full(len(right), 9)), expected, strict=True)
    ]
    quality = measure(tabulate(known, 0), rng.normal(size=len(right)))
    assert quality.all.baselines.logits == pytest.approx(1.0)
    assert quality.all.baselines.scores == pytest.approx(0.5)
    unknown = [replace(trajectory, expected_last=None) for trajectory in known]
    assert measure(tabulate(unknown, 0), rng.normal(size=len(right))).all.baselines.logits is None
