"""Restarts and their backoff."""

from grm_server.supervision.restart_policy import RestartPolicy

POLICY = RestartPolicy(restarts=10, settled_s=10)


def test_the_first_restart_is_immediate_and_later_ones_back_off() -> None:
    pauses = [POLICY.pause_s(failures) for failures in range(1, 11)]
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_it_gives_up_after_too_many_consecutive_failures() -> None:
    assert POLICY.pause_s(11) is None
    assert RestartPolicy(restarts=0, settled_s=10).pause_s(1) is None


def test_early_deaths_add_up_and_a_settled_engine_resets_the_count() -> None:
    failures = 0
    for lived_s in (3600, 1, 9.9):
        failures = POLICY.failures(failures, lived_s)
    assert failures == 3
    assert POLICY.failures(failures, 10) == 1
