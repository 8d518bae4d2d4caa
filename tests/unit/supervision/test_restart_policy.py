"""When an engine is started again, how soon, and when it counts as hung."""

import pytest

from grm_server.supervision.restart_policy import RestartPolicy, StallDetector

POLICY = RestartPolicy(restarts=10, settled_s=10)


def test_the_first_restart_is_at_once_and_those_after_failures_wait_longer_and_longer() -> None:
    pauses = [POLICY.pause_s(failures) for failures in range(1, 11)]
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_it_ends_after_so_many_failures_in_a_row() -> None:
    assert POLICY.pause_s(11) is None
    assert RestartPolicy(restarts=0, settled_s=10).pause_s(1) is None


def test_engines_that_die_young_add_up_and_one_that_settled_clears_the_count() -> None:
    failures = 0
    for lived_s in (3600, 1, 9.9):
        failures = POLICY.failures(failures, lived_s)
    assert failures == 3
    assert POLICY.failures(failures, 10) == 1


@pytest.mark.parametrize(
    ("looks", "silent_s"),
    [
        ([(True, 7)] * 4, 3),
        ([(False, 7)] * 4, 0),
        ([(True, 7), (True, 8), (True, 9), (True, 10)], 0),
        # Callers of a hung engine give up, and others come.
        ([(True, 7), (True, 7), (False, 7), (True, 7)], 2),
        ([(True, 7), (True, 7), (False, 8), (True, 8)], 1),
        ([(True, 7), (True, 7), (True, 8), (True, 8), (True, 8)], 2),
        ([(False, 7)] * 100 + [(True, 7)], 1),
    ],
)
def test_silence_is_counted_while_there_is_work_and_no_step(looks: list[tuple[bool, int]], silent_s: float) -> None:
    silence = StallDetector()
    for busy, steps in looks:
        silence = silence.after(1, busy=busy, steps=steps)
    assert silence.for_s == silent_s
