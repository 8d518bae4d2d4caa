"""What early stopping saves and what it costs: the server's rules against fixed k and Adaptive-Consistency, simulated.

    python -m benchmarks.stopping [--quick] [--out DIR] [--prompts 4000] [--seed 0]

For three simulated judges (benchmarks/judges.py), 2 and 4 responses and k = 32, with a look after every 4 samples:
samples used, share of prompts with the same best response as all 32 samples, share of early stops without it, and share
of prompts whose truly best response is named. Then what the rules promise (benchmarks/promises.py) and what dropping
losers saves among 8 and 16 responses.

Beside each number stands that of an earlier run of this comparison, to which the judges were fitted, and how many
standard errors of both runs lie between them. It was another program: where they agree, both are likely right.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import promises, rules, stopping_plot
from benchmarks.judges import JUDGES
from benchmarks.rules import K, Floats, Run, Traffic

PROMPTS, QUICK_PROMPTS = 4000, 300
GAMMA = 0.05
LEVELS = (0.01, 0.05, 0.10)

Cells = tuple[float | None, float | None, float | None, float | None]
EXPECTED_PROMPTS = 4000
EXPECTED: dict[tuple[int, str], dict[str, Cells]] = {
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
"""(responses, judge) -> rule -> the earlier run's samples, agreement, wrong early stops and label accuracy."""
EOF_MARK = 1
