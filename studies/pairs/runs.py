"""Judge simulated groups as the pipeline does: plan, wave, evidence, stop rule, vote; with the server's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from grm_server.grm.evidence import gather
from grm_server.grm.plan import layout_of, make_plan
from grm_server.grm.stopping import Decided, decide, leader, may_drop, rival_risks
from grm_server.grm.types import Contenders, Evidence, Order, Prior
from studies.pairs.judges import WIN_RANGE, Groups, Kind

LIST_SIZE = 8


@dataclass(frozen=True, slots=True)
class Look:
    """The state of a group after a wave."""

    rounds: int
    samples: int
    best: int
    risk: float


def _shown(kind: Kind) -> int:
    return 1 if kind == "singles" else 2


def _evidence(
    groups: Groups, prompt: int, kind: Kind, orders: Sequence[Order], planned: Sequence[Order], prior: Prior
) -> Evidence:
    return gather(
        groups.values(prompt, orders, kind),
        orders,
        prior,
        layout=layout_of(groups.scores.shape[2], LIST_SIZE, _shown(kind)),
        planned=planned,
        win_range=WIN_RANGE if kind in ("winners", "preferences") else None,
    )


def looks(groups: Groups, prompt: int, kind: Kind, k: int, prior: Prior) -> list[Look]:
    """All k rounds, with the risk that `decided` would see after each wave, without dropping."""
    n = groups.scores.shape[2]
    plan = make_plan(range(n), k, prompt, LIST_SIZE, max_shown=_shown(kind))
    orders = [draw.order for draw in plan.draws]
    result, rounds, samples = [], 0, 0
    while rounds < k:
        samples += len(plan.wave(rounds, k))
        rounds = plan.wave_end(rounds, k)
        evidence = _evidence(groups, prompt, kind, orders[:samples], orders[samples:], prior)
        risk = min(1.0, float(rival_risks(evidence, (k - rounds) / rounds, range(n)).sum()))
        result.append(Look(rounds, samples, leader(evidence, range(n)), risk))
    return result


def decided(groups: Groups, prompt: int, kind: Kind, k: int, prior: Prior, gamma: float) -> tuple[Look, int]:
    """`decided` with dropping, until it stops; and the best response after the audit, which draws the rest for all."""
    n, shown, rule = groups.scores.shape[2], _shown(kind), Decided(gamma)
    layout = layout_of(n, LIST_SIZE, shown)
    plan = whole = make_plan(range(n), k, prompt, LIST_SIZE, max_shown=shown)
    orders: list[Order] = []
    contenders, rounds, all_shown = Contenders(tuple(range(n))), 0, 0
    while True:
        orders += [draw.order for draw in plan.wave(rounds, k)]
        rounds = plan.wave_end(rounds, k)
        if plan is whole:
            all_shown = len(orders)
        planned = [draw.order for draw in plan.draws if draw.index >= len(orders)]
        evidence = _evidence(groups, prompt, kind, orders, planned, prior)
        decision = decide(
            rule, evidence, np.empty((0, n)), rounds, k, contenders,
            ballot_range=9.0, droppable=may_drop(rule, n, "mean", layout), layout=layout,
        )  # fmt: skip
        if decision.stop is not None:
            break
        if decision.contenders.active != contenders.active:
            contenders = decision.contenders
            plan = make_plan(contenders.active, k, prompt, LIST_SIZE, max_shown=shown, since=rounds, first=len(orders))
    look = Look(rounds, len(orders), leader(evidence, range(n)), decision.risk)
    audit = orders + [draw.order for draw in whole.draws[all_shown:]]
    return look, leader(_evidence(groups, prompt, kind, audit, (), prior), range(n))


def ring_and_pivots(groups: Groups, prompt: int, kind: Kind, pivots: int, repeats: int) -> Look:
    """The pivot tournament of LLM-as-a-Verifier (arXiv 2607.05391): a ring in one direction, then every other response
    against the `pivots` leaders of the ring, and these against each other. The mean ballot decides."""
    n = groups.scores.shape[2]
    ring = [(i, (i + 1) % n) for i in range(n)] * repeats
    means = np.nanmean(groups.values(prompt, ring, kind), axis=0)
    leaders = np.argsort(-means, kind="stable")[:pivots].tolist()
    others = [(i, pivot) for i in range(n) if i not in leaders for pivot in leaders]
    orders = ring + (others + list(combinations(sorted(leaders), 2))) * repeats
    means = np.nanmean(groups.values(prompt, orders, kind), axis=0)
    return Look(0, len(orders), int(np.nanargmax(means)), 0.0)
