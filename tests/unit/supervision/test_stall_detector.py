"""When an engine counts as hung."""

import pytest

from grm_server.supervision.stall_detector import StallDetector


@pytest.mark.parametrize(
    ("polls", "stalled_s"),
    [
        ([(True, 7)] * 4, 3),
        ([(False, 7)] * 4, 0),
        ([(True, 7), (True, 8), (True, 9), (True, 10)], 0),
        # Clients of a hung engine time out, and others arrive.
        ([(True, 7), (True, 7), (False, 7), (True, 7)], 2),
        ([(True, 7), (True, 7), (False, 8), (True, 8)], 1),
        ([(True, 7), (True, 7), (True, 8), (True, 8), (True, 8)], 2),
        ([(False, 7)] * 100 + [(True, 7)], 1),
    ],
)
def test_time_counts_while_there_is_work_and_no_step(polls: list[tuple[bool, int]], stalled_s: float) -> None:
    stall = StallDetector()
    for busy, steps in polls:
        stall = stall.after(1, busy=busy, steps=steps)
    assert stall.stalled_s == stalled_s
