"""Prometheus metrics of judging. vLLM's own stand beside them in the same scrape."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from grm_server.telemetry.admission import AdmissionMetrics
from grm_server.telemetry.http_metrics import HTTPMetrics
from grm_server.telemetry.quality import QualityMetrics

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One set of counters for one app, in a registry of its own, so that two apps in a process do not collide."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.admission = AdmissionMetrics(self._registry)
        self.http = HTTPMetrics(self._registry)
        self.quality = QualityMetrics(self._registry)
        self.requests = Counter(
            "grm_requests",
            "Well-formed requests, by error code or `ok`.",
            ["code"],
            registry=self._registry,
        )
        self.refused = Counter(
            "grm_door_refusals",
            "Requests that were refused before they were parsed, by error code.",
            ["code"],
            registry=self._registry,
        )
        self.samples = Counter(
            "grm_samples",
            "Samples drawn, by outcome: `valid`, why they gave no scores, or `aborted`: begun and not needed any more.",
            ["outcome"],
            registry=self._registry,
        )
        self.cut = Counter(
            "grm_samples_cut", "Samples whose principles or critique reached the token budget.", registry=self._registry
        )
        self.responses = Counter("grm_responses", "Responses that were given a reward.", registry=self._registry)
        self.tokens = Counter(
            "grm_tokens",
            "Tokens of finished samples, and of principles drawn for a query: prompt, of these cached, completion; and "
            "read by the meta RM: meta, of these meta_cached.",
            ["kind"],
            registry=self._registry,
        )
        self.stage_s = Histogram(
            "grm_stage_seconds",
            "Time of answered requests by stage: queue, generate, total.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.stops = Counter(
            "grm_stops", "Answered requests, by why no more samples were drawn.", ["reason"], registry=self._registry
        )
        self.k_used = Histogram(
            "grm_k_used",
            "Readings of each response in answered requests.",
            buckets=(1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64),
            registry=self._registry,
        )
        self.audits = Counter(
            "grm_audits",
            "Answers for which `decided` spared samples, drawn to full k in the background: does full k `agree` or "
            "`disagree`, or was the audit `skipped` because too many were under way, `expired` or `failed`.",
            ["outcome"],
            registry=self._registry,
        )
        self.ratings = Counter(
            "grm_meta_ratings",
            "Samples that the meta RM was asked about: `rated` or `failed`.",
            ["outcome"],
            registry=self._registry,
        )
        self.rating_s = Histogram(
            "grm_meta_seconds", "Time from a sample's end to its rating.", buckets=_SECONDS, registry=self._registry
        )
        self.unguided = Counter(
            "grm_requests_unguided",
            "Answered requests that asked for the meta RM and got the plain vote, because it failed.",
            registry=self._registry,
        )
        self.restarts = Counter(
            "grm_engine_restarts",
            "Starts of an engine in the place of a dead one: `restarted`, `failed`, or `given_up` after too many.",
            ["engine", "outcome"],
            registry=self._registry,
        )
        self.restart_s = Histogram(
            "grm_engine_restart_seconds",
            "Time from an engine's death, once it is known, until the next one took requests.",
            ["engine"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.replayed = Counter(
            "grm_samples_replayed",
            "Samples whose engine died and that were written anew, from their seeds.",
            registry=self._registry,
        )
        self.in_flight = Gauge("grm_requests_in_flight", "Requests being judged.", registry=self._registry)
        self.open_groups = Gauge(
            "grm_groups_open", "Groups whose responses wait for others to the same prompt.", registry=self._registry
        )
        self.group_size = Histogram(
            "grm_group_size",
            "Responses in a group when it closed, by why: `full`, `idle`, `deadline`, `pressure`, `drain`.",
            ["reason"],
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
            registry=self._registry,
        )
        self.wait_s = Histogram(
            "grm_group_wait_seconds",
            "How long a response waited until its group closed.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.shared = Counter(
            "grm_shared_judgements",
            "Responses that got the reward of an equal one: a `duplicate` in its group, one `in_flight`, or a `recent` "
            "one.",
            ["kind"],
            registry=self._registry,
        )
        self.shared_requests = Counter(
            "grm_shared_requests",
            "Requests that got the judgement of an identical one: one `in_flight`, or one in the `cache`.",
            ["kind"],
            registry=self._registry,
        )
        self.principles = Counter(
            "grm_principles",
            "Requests that want principles drawn once for their query: `drawn`, `cached`; or `failed`, `late`, so that "
            "each sample wrote its own.",
            ["outcome"],
            registry=self._registry,
        )
        self.failed_rewards = Counter(
            "grm_failed_rewards",
            "Rewards that could not be judged, by trainer and by what it got instead: `neutral`, `none`, `masked`, "
            "`error`.",
            ["trainer", "answer"],
            registry=self._registry,
        )
        self.uncentered = Counter(
            "grm_uncentered_rewards",
            "Rewards that were to be centered and had no others to compare with, by trainer; they were 0.",
            ["trainer"],
            registry=self._registry,
        )

    def sample(self, outcome: str, *, cut: bool, prompt: int, cached: int, completion: int) -> None:
        """Count one sample that ended; `outcome` is `valid` or why it gave no scores."""
        self.samples.labels(outcome).inc()
        self.cut.inc(cut)
        self.spent(prompt=prompt, cached=cached, completion=completion)

    def spent(self, *, prompt: int, cached: int, completion: int) -> None:
        """Count the judge's tokens."""
        for kind, count in (("prompt", prompt), ("cached", cached), ("completion", completion)):
            self.tokens.labels(kind).inc(count)

    def rated(self, seconds: float, *, prompt: int, cached: int) -> None:
        """Count one sample that the meta RM rated."""
        self.ratings.labels("rated").inc()
        self.rating_s.observe(seconds)
        self.tokens.labels("meta").inc(prompt)
        self.tokens.labels("meta_cached").inc(cached)

    def unrated(self) -> None:
        """Count one sample that the meta RM failed to rate."""
        self.ratings.labels("failed").inc()

    def aborted(self, count: int) -> None:
        """Count samples that were begun and not needed any more."""
        self.samples.labels("aborted").inc(count)

    def answered(
        self, responses: int, *, stop_reason: str, k_used: int, queue_s: float, generate_s: float, total_s: float
    ) -> None:
        """Count one request that got its rewards."""
        self.requests.labels("ok").inc()
        self.stops.labels(stop_reason).inc()
        self.k_used.observe(k_used)
        self.responses.inc(responses)
        for stage, seconds in (("queue", queue_s), ("generate", generate_s), ("total", total_s)):
            self.stage_s.labels(stage).observe(seconds)

    def exposition(self) -> bytes:
        """Prometheus' text format: ours, then the process-wide registry, where vLLM keeps its own."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)
