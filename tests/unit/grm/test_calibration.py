"""The label temperature: recovered from simulated labels, and never above the judge's own certainty."""

import numpy as np
import pytest

from grm_server.grm.calibration import (
    Labelled,
    expected_calibration_error,
    fit,
    p_label,
    soften,
    temperature,
)


def overconfident(count: int, tau: float, seed: int = 0) -> list[Labelled]:
    """Answers whose labels follow `p_best` softened by tau, of two to four responses and 4 to 16 samples."""
    rng = np.random.default_rng(seed)
    labelled = []
    for _ in range(count):
        k_used = int(rng.choice([4, 8, 16]))
        logits = rng.normal(0, 3, rng.integers(2, 5))
        p_best = tuple(np.exp(logits) / np.exp(logits).sum())
        truth = soften(p_best, temperature(tau, k_used))
        labelled.append(Labelled(p_best, k_used, int(rng.choice(len(truth), p=truth))))
    return labelled


def test_the_temperature_is_recovered() -> None:
    assert fit(overconfident(4000, 1.2)) == pytest.approx(1.2, rel=0.1)


def test_softened_chances_come_true() -> None:
    tau = fit(overconfident(2000, 1.2))
    held_out = overconfident(2000, 1.2, seed=1)

    def error(chances: list[tuple[float, ...]]) -> float:
        right = [int(np.argmax(c)) == item.label for c, item in zip(chances, held_out, strict=True)]
        return expected_calibration_error([max(c) for c in chances], right)

    assert error([item.p_best for item in held_out]) > 0.15
    assert error([p_label(item, tau) for item in held_out]) < 0.05


def test_labels_never_raise_the_judges_certainty() -> None:
    assert temperature(0.1, 4) == 1.0
    assert temperature(1.25, 16) == 5.0
    assert soften((0.9, 0.1), 1.0) == pytest.approx((0.9, 0.1))


def test_chances_that_were_never_drawn_are_no_certainty() -> None:
    softened = soften((1.0, 0.0, 0.0), 4.0)
    assert sum(softened) == pytest.approx(1)
    assert softened[1] > 0.05


def test_calibration_error() -> None:
    assert expected_calibration_error([0.75] * 4, [True, True, True, False]) == 0
    assert expected_calibration_error([1.0] * 4, [True, True, False, False]) == pytest.approx(0.5)
