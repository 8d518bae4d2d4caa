"""All settings in one object."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from grm_server.settings.engines import EngineSettings, MetaRMSettings
from grm_server.settings.http import HTTPSettings, LimitSettings
from grm_server.settings.judging import JudgeSettings, StoppingSettings
from grm_server.settings.section import Section
from grm_server.settings.serving import AdmissionSettings, GroupingSettings, JudgementSettings, SupervisionSettings
from grm_server.settings.trainers import TrainerSettings


class Settings(Section):
    http: HTTPSettings = HTTPSettings()
    judge: JudgeSettings = JudgeSettings()
    stopping: StoppingSettings = StoppingSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    meta_rm: MetaRMSettings = MetaRMSettings()
    admission: AdmissionSettings = AdmissionSettings()
    grouping: GroupingSettings = GroupingSettings()
    judgements: JudgementSettings = JudgementSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    trainers: TrainerSettings = TrainerSettings()
    cache_dir: Path = Path("~/.cache/grm-server")
    """Where the bundled model is kept once it is prepared, and what traffic teaches."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of this server. vLLM's own is VLLM_LOGGING_LEVEL, ERROR unless you set it."""
