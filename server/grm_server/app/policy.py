"""Values derived from several settings. Invalid combinations raise SettingsError before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grm_server.api.from_wire import RequestPolicy
from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.stopping import RULES
from grm_server.grm.types import needs_meta_rm
from grm_server.judging.calibration import Calibration, load_calibration
from grm_server.judging.formats import Formats
from grm_server.meta_rm import bundled as bundled_meta
from grm_server.meta_rm.card import MetaCard, load_card
from grm_server.settings import MetaRMSettings, Settings, SettingsError

if TYPE_CHECKING:
    from grm_server.telemetry.tracing import Tracing

_BUNDLED_CRITIQUE_TOKENS = 192
"""The bundled model is small and rambles, so we cut it early. A trained judge writes 220 to 380 tokens (Liu et al.
2025)."""
_CRITIQUE_TOKENS = 1024


def policy_of(settings: Settings, formats: Formats) -> RequestPolicy:
    judge, limits = settings.judge, settings.limits
    for name, default, limit in (
        ("k", judge.k, limits.max_k),
        ("max_critique_tokens", judge.max_critique_tokens or 0, limits.max_critique_tokens),
    ):
        if default > limit:
            raise SettingsError(f"judge.{name} = {default} is more than a request may ask for: {limit} (limits)")
    if RULES[settings.stopping.rule].exchangeable_orders and not AGGREGATES[judge.aggregate].sums_over_samples:
        raise SettingsError(
            "stopping.rule = strict is proven for sums over samples, which judge.aggregate = winsorised is not"
        )
    return RequestPolicy(judge, settings.stopping, limits, settings.meta_rm, max_critique_tokens(settings), formats)


def max_critique_tokens(settings: Settings) -> int:
    """The default budget of a critique in formats that have none of their own."""
    by_model = _BUNDLED_CRITIQUE_TOKENS if settings.engine.model == "bundled" else _CRITIQUE_TOKENS
    return min(by_model, settings.limits.max_critique_tokens)


def meta_card_of(settings: Settings) -> MetaCard | None:
    """The meta RM's card, if any. Raises SettingsError for missing settings, or for a weak meta RM as the default."""
    meta = settings.meta_rm
    guided = needs_meta_rm(settings.judge.aggregate)
    if meta.kind == "none":
        if guided:
            raise SettingsError(f"judge.aggregate = {settings.judge.aggregate} needs a meta RM (--meta-rm)")
        return None
    if meta.kind == "remote" and meta.url is None:
        raise SettingsError("meta_rm.kind = remote needs meta_rm.url, the address of /classify or /pooling")
    if meta.kind in ("vllm", "remote") and meta.model is None:
        raise SettingsError(f"meta_rm.kind = {meta.kind} needs meta_rm.model, a path or a name on a model hub")
    with setting_errors("meta_rm.model"):
        if is_bundled(meta):
            card: MetaCard | None = bundled_meta.card()
        else:
            card = None if meta.model is None else load_card(Path(meta.model))
    if guided and card is not None and not card.passes and not meta.allow_weak:
        raise SettingsError(
            f"judge.aggregate = {settings.judge.aggregate}: the meta RM {meta.model} is too weak by its card: "
            f"{'; '.join(card.shortfalls)}. Requests can still select it; to use it as the default anyway, set "
            "meta_rm.allow_weak=true"
        )
    return card


def calibration_of(settings: Settings) -> Calibration | None:
    path = settings.stopping.calibration
    try:
        return None if path is None else load_calibration(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"stopping.calibration: {path} is not a file of `grm calibrate`: {error}") from error


def tracing_of(settings: Settings) -> Callable[[], Tracing] | None:
    """A function that starts tracing, or None if tracing is off. Raises SettingsError without OpenTelemetry."""
    if not settings.tracing:
        return None
    try:
        from grm_server.telemetry.tracing import Tracing
    except ImportError as error:
        raise SettingsError(
            f"tracing = true: {error}; in a clone of the repository: pip install ./clients '.[tracing]'"
        ) from error
    return Tracing


def is_bundled(meta: MetaRMSettings) -> bool:
    """Whether the meta RM is the one in this package. A remote model named `bundled` is not."""
    return meta.kind == "vllm" and meta.model == "bundled"


@contextmanager
def setting_errors(setting: str) -> Iterator[None]:
    """Report an unreadable or invalid file as an error of `setting`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingsError(f"{setting}: {error}") from error
