"""The tree of all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from grm_server.settings.admission import AdmissionSettings
from grm_server.settings.auth import AuthSettings
from grm_server.settings.caching import CacheSettings, JudgementSettings, PrinciplesSettings
from grm_server.settings.engines import EngineSettings, MetaRMSettings, SupervisionSettings
from grm_server.settings.grouping import GroupingSettings
from grm_server.settings.http import HTTPSettings, LimitSettings
from grm_server.settings.judging import JudgeSettings, StoppingSettings
from grm_server.settings.section import Section
from grm_server.settings.trainers import TrainerSettings


class Settings(Section):
    http: HTTPSettings = HTTPSettings()
    auth: AuthSettings = AuthSettings()
    judge: JudgeSettings = JudgeSettings()
    stopping: StoppingSettings = StoppingSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    meta_rm: MetaRMSettings = MetaRMSettings()
    admission: AdmissionSettings = AdmissionSettings()
    grouping: GroupingSettings = GroupingSettings()
    cache: CacheSettings = CacheSettings()
    principles: PrinciplesSettings = PrinciplesSettings()
    judgements: JudgementSettings = JudgementSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    trainers: TrainerSettings = TrainerSettings()
    cache_dir: Path = Path("~/.cache/grm-server")
    """Folder for the prepared bundled models and the learned priors."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Log level of this server. vLLM has its own, VLLM_LOGGING_LEVEL; the default is ERROR."""
    log_format: Literal["text", "json"] = "text"
    """`json`: one JSON object per line, including the logs of vLLM and uvicorn."""
    log_requests: Literal["none", "failed", "all"] = "failed"
    """HTTP requests that are logged when they end."""
    tracing: bool = False
    """Send OpenTelemetry traces. OpenTelemetry's own variables set the target, e.g. OTEL_EXPORTER_OTLP_ENDPOINT."""
