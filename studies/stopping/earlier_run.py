"""Results of an earlier run of this study, by another program with its own judges, and the comparison with them.

The judges of studies/judges.py were fitted to that run, so agreement with it checks the rules, not the judges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Cells = tuple[float | None, float | None, float | None, float | None]
QUANTITIES = ("samples", "agreement", "wrong early", "label accuracy")
"""Names of the cells: average samples, share of prompts with the same best response as all samples, share of early
stops with another one, share of prompts for which the truly best response is named."""
PROMPTS = 4000
RULES: dict[tuple[int, str], dict[str, Cells]] = {
    (2, "A"): {
        "fixed 4": (4, 0.898, None, None),
        "fixed 8": (8, 0.930, None, 0.735),
        "fixed 16": (16, 0.959, None, None),
        "fixed 32": (32, 1, None, 0.742),
        "Adaptive-Consistency .90": (9.8, 0.978, None, None),
        "Adaptive-Consistency .95": (12.4, 0.984, None, None),
        "Adaptive-Consistency .99": (17.1, 0.986, None, None),
        "decided .01": (12.7, 0.999, None, None),
        "decided .05": (9.7, 0.993, 0.008, 0.740),
        "decided .10": (8.1, 0.983, None, None),
        "strict .01": (24.9, 1, None, None),
        "strict .05": (22.1, 1, None, None),
        "strict .10": (20.3, 1, None, None),
    },
    (2, "C"): {
        "fixed 4": (4, 0.859, 0.141, 0.704),
        "fixed 8": (8, 0.904, 0.096, 0.723),
        "fixed 16": (16, 0.942, 0.058, 0.725),
        "fixed 32": (32, 1, None, 0.738),
        "Adaptive-Consistency .90": (10.7, 0.967, 0.017, 0.737),
        "Adaptive-Consistency .95": (13.7, 0.972, 0.006, 0.738),
        "Adaptive-Consistency .99": (18.6, 0.975, 0.001, 0.741),
        "decided .01": (15.3, 0.998, 0.002, 0.738),
        "decided .05": (11.7, 0.992, 0.009, 0.738),
        "decided .10": (9.6, 0.981, 0.020, 0.737),
        "strict .01": (25.9, 1, 0, 0.738),
        "strict .05": (23.3, 1, 0, 0.738),
        "strict .10": (21.5, 1, 0, 0.738),
    },
    (2, "B"): {
        "fixed 4": (4, 0.797, 0.203, None),
        "fixed 8": (8, 0.843, 0.157, 0.682),
        "fixed 16": (16, 0.903, 0.097, None),
        "fixed 32": (32, 1, None, 0.714),
        "Adaptive-Consistency .90": (14.2, 0.939, 0.040, None),
        "Adaptive-Consistency .95": (18.0, 0.954, 0.014, None),
        "Adaptive-Consistency .99": (23.6, 0.958, 0.003, None),
        "decided .01": (19.4, 0.997, 0.004, None),
        "decided .05": (15.3, 0.985, 0.017, 0.704),
        "decided .10": (12.5, 0.963, 0.040, None),
        "strict .01": (27.8, 1, 0, None),
        "strict .05": (25.5, 1, 0, None),
        "strict .10": (23.9, 1, 0, None),
    },
    (4, "A"): {
        "fixed 8": (8, 0.882, None, None),
        "fixed 32": (32, 1, None, 0.582),
        "Adaptive-Consistency .95": (17.2, 0.957, None, None),
        "decided .01": (16.9, 0.999, None, None),
        "decided .05": (13.4, 0.991, None, None),
        "decided .10": (11.3, 0.980, None, None),
        "strict .05": (27.6, 1, None, None),
    },
    (4, "C"): {
        "fixed 8": (8, 0.829, None, 0.546),
        "fixed 32": (32, 1, None, 0.577),
        "Adaptive-Consistency .95": (18.6, 0.929, None, 0.579),
        "decided .01": (19.9, 0.998, None, 0.578),
        "decided .05": (16.2, 0.989, None, 0.574),
        "decided .10": (13.8, 0.974, None, 0.573),
        "strict .05": (28.3, 1, None, 0.577),
    },
    (4, "B"): {
        "fixed 8": (8, 0.740, None, None),
        "fixed 32": (32, 1, None, 0.550),
        "Adaptive-Consistency .95": (24.9, 0.873, None, None),
        "decided .01": (24.4, 0.998, None, None),
        "decided .05": (20.9, 0.990, None, None),
        "decided .10": (18.4, 0.975, None, None),
        "strict .05": (30.0, 1, None, None),
    },
}
"""(responses, judge) -> rule -> cells; None if not known."""

MANY: dict[int, dict[str, tuple[float, float, float]]] = {
    8: {
        "fixed 32": (22400, 1, 0.462),
        "fixed 8": (5600, 0.753, 0.428),
        "decided .05": (13622, 0.988, 0.464),
        "decided .05, dropping": (9436, 0.995, 0.464),
    },
    16: {
        "fixed 32": (41600, 1, 0.357),
        "fixed 8": (10400, 0.679, 0.312),
        "decided .05": (28779, 0.988, 0.360),
        "decided .05, dropping": (16677, 0.998, 0.357),
    },
}
"""Responses -> rule -> tokens, agreement and label accuracy, judge C. In that run dropping could spend all of gamma."""
STRICT_ERRORS = {0.01: 0.002, 0.05: 0.010, 0.10: 0.016}
"""delta -> the largest error rate of `strict` on adversarial populations."""
DECEIVED = {4: 0.53, 8: 0.34}
"""First look -> error rate of `decided` .05 on 26 differences of +2 and 6 of -9."""
RISK = ((0.007, 0.003), (0.015, 0.009), (0.034, 0.019), (0.074, 0.049), (0.147, 0.116), (0.25, 0.23), (0.35, 0.32))
"""Predicted and observed disagreement, by bin."""
MARGINS = {"A": (1.80, 1.61, 1.60), "B": (1.45, 1.06, 1.04), "C": (1.75, 1.47, 1.45)}
"""Raw, posterior and true margin after `decided` .05 has stopped."""
MARGINS_AT_4 = {"C": (3.03, 2.45, 2.36)}


@dataclass(frozen=True, slots=True)
class Row:
    """Results of a rule in this run and in the earlier one."""

    n: int
    judge: str
    rule: str
    values: Cells
    earlier: Cells
    z: Cells
    """Difference between the runs, in standard errors of both."""


def compare(n: int, judge: str, rule: str, values: Cells, prompts: int, stops: int, samples_sd: float) -> Row:
    """stops: number of prompts on which the rule stopped early. samples_sd: standard deviation over prompts."""
    earlier: Cells = RULES[n, judge].get(rule, (None,) * 4)
    counts = ((prompts, PROMPTS), (prompts, PROMPTS), (stops, stops / prompts * PROMPTS), (prompts, PROMPTS))
    # Skip cells that are constant by definition of the rule.
    fixed = (rule.startswith("fixed"), rule == "fixed 32", False, False)
    z: list[float | None] = []
    for place, (value, before, (count, count_before)) in enumerate(zip(values, earlier, counts, strict=True)):
        if value is None or before is None or fixed[place]:
            z.append(None)
            continue
        share = (value * count + before * count_before) / (count + count_before)
        # The earlier numbers are rounded to 0.1 or 0.001.
        variance, rounded = (samples_sd**2, 0.1) if place == 0 else (share * (1 - share), 0.001)
        z.append((value - before) / math.sqrt(variance * (1 / count + 1 / count_before) + rounded**2 / 12))
    return Row(n, judge, rule, values, earlier, (z[0], z[1], z[2], z[3]))
