"""The label temperature: recovered from simulated labels, and never above the judge's own certainty."""

import numpy as np
import pytest

from grm_server.grm.calibration import (
    LabelledAnswer,
    expected_calibration_error,
    fit,
    p_label,
    soften,
    temperature,
)


def overconfident(count: int, tau: float, seed: int = 0) -> list[LabelledAnswer]:
    """Answers whose labels follow `p_best` softened by tau, with 2 to 4 responses and 4 to 16 rounds."""
    rng = np.random.default_rng(seed)
    labelled = []
    for _ in range(count):
        k_used = int(rng.choice([4, 8, 16]))
        logits = rng.normal(0, 3, rng.integers(2, 5))
        p_best = tuple(np.exp(logits) / np.exp(logits).sum())
        truth = soften(p_best, temperature(tau, k_used))
        labelled.append(LabelledAnswer(p_best, k_used, int(rng.choice(len(truth), p=truth))))
    return labelled


def test_the_temperature_is_recovered() -> None:
    assert fit(overconfident(4000, 1.2)) == pytest.approx(1.2, rel=0.1)


def test_softened_probabilities_are_calibrated() -> None:
    tau = fit(overconfident(2000, 1.2))
    held_out = overconfident(2000, 1.2, seed=1)

    def error(predicted: list[tuple[float, ...]]) -> float:
        right = [int(np.argmax(p)) == item.label for p, item in zip(predicted, held_out, strict=True)]
        return expected_calibration_error([max(p) for p in predicted], right)

    assert error([item.p_best for item in held_out]) > 0.15
    assert error([p_label(item, tau) for item in held_out]) < 0.05


def test_labels_never_raise_the_judges_certainty() -> None:
    assert temperature(0.1, 4) == 1.0
    assert temperature(1.25, 16) == 5.0
    assert soften((0.9, 0.1), 1.0) == pytest.approx((0.9, 0.1))


def test_an_estimated_probability_of_0_is_no_certainty() -> None:
    softened = soften((1.0, 0.0, 0.0), 4.0)
    assert sum(softened) == pytest.approx(1)
    assert softened[1] > 0.05


def test_calibration_error() -> None:
    assert expected_calibration_error([0.75] * 4, [True, True, True, False]) == 0
    assert expected_calibration_error([1.0] * 4, [True, True, False, False]) == pytest.approx(0.5)
