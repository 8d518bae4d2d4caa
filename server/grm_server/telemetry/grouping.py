"""Prometheus metrics of responses that trainers send one by one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class GroupingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.open_groups = Gauge(
            "grm_groups_open", "Groups that wait for more responses to their prompt.", registry=registry
        )
        self.group_size = Histogram(
            "grm_group_size",
            "Responses in a group when it closed, by reason: `full`, `idle`, `deadline`, `pressure`, `drain`.",
            ["reason"],
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
            registry=registry,
        )
        self.wait_s = Histogram(
            "grm_group_wait_seconds",
            "How long a response waited until its group closed.",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.shared = Counter(
            "grm_shared_judgements",
            "Responses that got the reward of an equal one: a `duplicate` in its group, one `in_flight`, or a `recent` "
            "one.",
            ["kind"],
            registry=registry,
        )
        self.failed_rewards = Counter(
            "grm_failed_rewards",
            "Responses that could not be judged, by trainer and by what it got instead: `neutral`, `none`, `masked`, "
            "`error`.",
            ["trainer", "answer"],
            registry=registry,
        )
        self.unknown_templates = Counter(
            "grm_unknown_templates",
            "Texts with a token of an unknown chat template, by trainer; they were judged as they are.",
            ["trainer"],
            registry=registry,
        )
        self.uncentered = Counter(
            "grm_uncentered_rewards",
            "Rewards to be centered in a group of one, by trainer; they were 0.",
            ["trainer"],
            registry=registry,
        )
