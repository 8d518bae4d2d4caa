"""Which cells `benchmarks.serving.load` measures, in which process, and how long that takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.lib.cells import Key
from benchmarks.lib.workloads import parse_workloads
from benchmarks.serving.load_systems import OURS

GUESS_SAMPLES_PER_S, GUESS_START_S = 2.0, 40.0
START_ORDER = ("fixed", "decided", "same engine", "default engine")


def cell_keys(args: argparse.Namespace, systems: list[str]) -> Iterator[Key]:
    """All cells: the closed loops, then the open loops, each round after round."""
    for number in range(args.rounds):
        for system in systems:
            for workload in parse_workloads(args.workloads):
                yield Key(system, str(workload), 0.0, number)
    if "separate" in systems or args.engine == "fake":
        for number in range(args.open_rounds if args.open_requests else 0):
            for system in systems:
                if not system.startswith(("n=k-", "separate-")):
                    yield from (Key(system, args.open_workload, load, number) for load in args.loads)


def schedule(todo: list[Key]) -> Iterator[tuple[str, list[Key]]]:
    """Processes to start, and the cells to measure in each. Closed loops come first; the order rotates every round.

    In the first round `fixed` comes before the baselines, because it determines their sample lengths. Each load of the
    open loop has its own processes: all loads send the same requests, and must not find them in the prefix cache.
    """
    for load, number in sorted({(key.load, key.round) for key in todo}):
        shift = number % len(START_ORDER)
        for process in (*START_ORDER[shift:], *START_ORDER[:shift]):
            keys = [k for k in todo if (k.load, k.round, process_of(k.system)) == (load, number, process)]
            if keys:
                yield process, keys


def process_of(system: str) -> str:
    """The server process that runs this system."""
    if system in OURS:
        return system
    return "default engine" if system.endswith("-default") else "same engine"


def estimate(todo: list[Key], args: argparse.Namespace) -> str:
    """How long the cells will take, from a guessed speed."""
    closed_samples = sum(args.samples for key in todo if not key.load)
    open_samples = sum(args.open_requests * parse_workloads(key.workload)[0].k / key.load for key in todo if key.load)
    starts = sum(1 for _ in schedule(todo))
    seconds = (closed_samples + open_samples) / GUESS_SAMPLES_PER_S + starts * GUESS_START_S
    return f"{len(todo)} cells, {starts} starts: about {seconds / 60:.0f} min at {GUESS_SAMPLES_PER_S:g} samples/s"
