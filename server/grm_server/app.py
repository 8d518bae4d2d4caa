"""The composition root: the only place that turns settings into a running service."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI

from grm_server.api.convert import RequestPolicy
from grm_server.api.door import callers_of, guard
from grm_server.api.error_table import add_error_handlers
from grm_server.api.routes import router
from grm_server.api.service import Service
from grm_server.api.trainers import trainers_router
from grm_server.engine import bundled, bundled_meta
from grm_server.engine.base import MetaRM, Sampler
from grm_server.engine.fake import FakeMetaRM, FakeSampler
from grm_server.engine.meta_card import MetaCard, load_card, template_digest
from grm_server.engine.profile import stall_s
from grm_server.engine.remote_meta import connect
from grm_server.engine.vllm import start_vllm
from grm_server.engine.vllm_meta import start_vllm_meta
from grm_server.engine.warm_up import warmed_up
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.types import needs_meta_rm
from grm_server.pipeline.rater import Guidance
from grm_server.serving.admission import Admission
from grm_server.serving.calibration import Calibration, load_calibration
from grm_server.serving.grouping import Grouping
from grm_server.serving.judgements import Judgements, Judging
from grm_server.serving.principles import Principles
from grm_server.serving.priors import PriorStore
from grm_server.serving.restarts import RestartPolicy
from grm_server.serving.scoring import Scoring
from grm_server.serving.sharing import Sharing
from grm_server.serving.supervised import SupervisedMetaRM, SupervisedSampler
from grm_server.serving.supervision import Supervisor
from grm_server.serving.templates import judge_template, meta_template, principles_template
from grm_server.settings import MetaRMSettings, Settings, SettingsError
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_BUNDLED_CRITIQUE_TOKENS = 192
"""A small model that rambles is cut early; a trained judge writes 220 to 380 tokens (Liu et al. 2025)."""
_CRITIQUE_TOKENS = 1024


def create_app(settings: Settings, sampler: Sampler | None = None, meta_rm: MetaRM | None = None) -> FastAPI:
    """The HTTP service. Its engines start with the app's lifespan, unless they are given.

    Raises SettingsError for a template that cannot be read or does not show what it must.
    """
    with _about("judge.template"):
        template = judge_template(settings.judge.template)
    with _about("meta_rm.template"):
        rater_template = meta_template(settings.meta_rm.template)
    with _about("auth.keys_file"):
        callers = callers_of(settings.auth)
    calibration, card = _calibration(settings), _meta_card(settings)
    if card is not None and card.template_sha256 != template_digest(rater_template.source):
        logger.warning("the meta RM was trained with another template: its probabilities are not to be relied on")
    service = Service(
        _policy(settings),
        Metrics(),
        Judgements(settings.judgements.max_mib, settings.judgements.ttl_s),
        settings.trainers,
        settings.grouping,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            engine = sampler or await _start_engine(settings, template, service.metrics)
            rater = meta_rm or await _start_meta_rm(settings, card, service.metrics)
        except Exception as error:
            # The log gets the whole traceback; `grm serve` ends with this as its last line.
            app.state.start_error = error
            raise
        scoring = Scoring(
            template,
            engine,
            Admission(
                engine,
                service.metrics,
                capacity=_capacity(settings),
                max_waiting_samples=settings.admission.max_waiting_samples,
                max_waiting_prompt_tokens=settings.admission.max_waiting_prompt_tokens,
                template_letters=len(template.source),
            ),
            service.metrics,
            PriorStore((settings.stopping.priors or settings.cache_dir / "priors.json").expanduser()),
            None if rater is None else Guidance(rater, rater_template, settings.meta_rm.p0),
            audit_share=settings.stopping.audit_share,
            calibration=calibration,
        )
        principles = Principles(
            principles_template(),
            scoring.admission,
            service.metrics,
            max_mib=settings.principles.max_mib,
            ttl_s=settings.principles.ttl_s,
        )
        service.judging = Judging(scoring, principles, service.judgements, service.metrics)
        service.sharing = Sharing(
            service.judging.judge,
            service.judgements,
            service.metrics,
            max_mib=settings.cache.max_mib,
            ttl_s=settings.cache.ttl_s,
        )
        service.grouping = Grouping(
            service.judging.judge,
            service.metrics,
            max_waiting=settings.grouping.max_waiting,
            max_judged=settings.grouping.max_judged,
            ttl_s=settings.grouping.ttl_s,
        )
        yield
        await service.grouping.close()
        await scoring.close()
        if rater is not None:
            await rater.close()
        await engine.close()

    app = FastAPI(
        title="GRM Server",
        version=version("grm-server"),
        summary="Rewards from k readings of a generative reward model.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(trainers_router())
    guard(app, settings.http, callers, service)
    add_error_handlers(app)
    return app


def prepare(settings: Settings) -> None:
    """Make the bundled models ready, if they are asked for. Raises NotPrepared and OSError, which say what to do."""
    if settings.engine.kind == "vllm" and settings.engine.model == "bundled":
        bundled.bundled_model(settings.cache_dir)
    if _ships(settings.meta_rm):
        bundled_meta.bundled_meta_rm(settings.cache_dir)


async def _start_engine(settings: Settings, template: JudgeTemplate, metrics: Metrics) -> Sampler:
    engine, supervision = settings.engine, settings.supervision
    if engine.kind == "fake":
        return FakeSampler(delay_s=engine.fake_sample_s, max_running=engine.max_num_seqs, recording=False)
    model_path = str(bundled.bundled_model(settings.cache_dir)) if engine.model == "bundled" else engine.model
    name = engine.served_name or (bundled.NAME if engine.model == "bundled" else _last_part(engine.model))

    async def start() -> Sampler:
        logger.info("starting the engine with %s", name)
        started = await start_vllm(engine, model_path, name)
        if engine.warm_up:
            await warmed_up(started, template)
        return started

    supervisor = Supervisor(
        "engine",
        start,
        RestartPolicy(supervision.restarts, supervision.settled_s),
        metrics,
        pulse=lambda one: (one.running > 0, one.pulse.steps),
        stall_s=supervision.stall_s or stall_s(),
    )
    await supervisor.begin()
    return SupervisedSampler(supervisor, metrics)


def _capacity(settings: Settings) -> int:
    """Samples in the engine from which on requests wait."""
    engine = settings.engine
    at_once: int = engine.vllm_args.get("max_num_seqs", engine.max_num_seqs)
    return settings.admission.max_running_samples or math.ceil(1.25 * at_once)


async def _start_meta_rm(settings: Settings, card: MetaCard | None, metrics: Metrics) -> MetaRM | None:
    """The meta RM, after the judge: it is the smaller of the two."""
    meta = settings.meta_rm
    platt = meta.platt or (card.platt if card is not None else (1.0, 0.0))
    if meta.kind == "none":
        return None
    if meta.kind == "fake":
        return FakeMetaRM()
    assert meta.model is not None
    shipped = _ships(meta)
    name = meta.served_name or (bundled_meta.NAME if shipped else _last_part(meta.model))
    if meta.kind == "remote":
        assert meta.url is not None
        return connect(meta, meta.url, name, platt)
    model_path = str(bundled_meta.bundled_meta_rm(settings.cache_dir)) if shipped else meta.model

    async def start() -> MetaRM:
        logger.info("starting the meta RM %s", name)
        return await start_vllm_meta(meta, model_path, name, platt)

    policy = RestartPolicy(settings.supervision.restarts, settings.supervision.settled_s)
    supervisor = Supervisor("meta_rm", start, policy, metrics)
    await supervisor.begin()
    return SupervisedMetaRM(supervisor)


def _ships(meta: MetaRMSettings) -> bool:
    """Whether it is the one that comes with this package; what another server calls `bundled` is its own."""
    return meta.kind == "vllm" and meta.model == "bundled"


def _last_part(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


@contextmanager
def _about(setting: str) -> Iterator[None]:
    """A file that cannot be used is a wrong setting."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingsError(f"{setting}: {error}") from error


def _meta_card(settings: Settings) -> MetaCard | None:
    """What is known of the meta RM, if anything. Raises SettingsError where it may not do what it is set to do."""
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
    with _about("meta_rm.model"):
        if _ships(meta):
            card: MetaCard | None = bundled_meta.card()
        else:
            card = None if meta.model is None else load_card(Path(meta.model))
    if guided and card is not None and not card.passes and not meta.allow_weak:
        raise SettingsError(
            f"judge.aggregate = {settings.judge.aggregate}: of the meta RM {meta.model} its card says that "
            f"{'; '.join(card.shortfalls)}. Requests may still ask for it; to make it the default all the same, set "
            "meta_rm.allow_weak=true"
        )
    return card


def _calibration(settings: Settings) -> Calibration | None:
    path = settings.stopping.calibration
    try:
        return None if path is None else load_calibration(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"stopping.calibration: {path} is not what `grm calibrate` writes: {error}") from error


def _policy(settings: Settings) -> RequestPolicy:
    judge, limits = settings.judge, settings.limits
    for name, default, limit in (
        ("k", judge.k, limits.max_k),
        ("max_critique_tokens", judge.max_critique_tokens or 0, limits.max_critique_tokens),
    ):
        if default > limit:
            raise SettingsError(f"judge.{name} = {default} is more than a request may ask for: {limit} (limits)")
    if settings.stopping.rule == "strict" and judge.aggregate == "winsorised":
        raise SettingsError(
            "stopping.rule = strict is proven for sums over samples, which judge.aggregate = winsorised is not"
        )
    by_model = _BUNDLED_CRITIQUE_TOKENS if settings.engine.model == "bundled" else _CRITIQUE_TOKENS
    return RequestPolicy(
        k=judge.k,
        temperature=judge.temperature,
        max_critique_tokens=judge.max_critique_tokens or min(by_model, limits.max_critique_tokens),
        stop=settings.stopping.rule,
        gamma=settings.stopping.gamma,
        delta=settings.stopping.delta,
        se=settings.stopping.se,
        aggregate=judge.aggregate,
        meta_rm=settings.meta_rm.kind != "none",
        unguided=settings.meta_rm.failure == "vote",
        principles_from=judge.principles_from,
        list_size=judge.list_size,
        speculate_below=settings.stopping.speculate_below,
        limit_responses=limits.max_responses,
        limit_k=limits.max_k,
        limit_critique_tokens=limits.max_critique_tokens,
        limit_samples=limits.max_samples,
        limit_deadline_s=limits.max_deadline_s,
    )
