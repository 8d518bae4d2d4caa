"""All settings of the server, in one frozen object that the composition root reads once.

From the environment: prefix `GRM_`, sections joined by two underscores (`GRM_ENGINE__DTYPE=float32`). From the command
line: `grm serve --set engine.dtype=float32`, which wins. Unknown names are refused. Options of a request (k,
temperature, seed) are request fields; the settings hold their defaults and limits.
"""

from grm_server.settings.auth import MIN_KEY, AuthSettings, KeyName
from grm_server.settings.engines import EngineSettings, MetaRMSettings, SupervisionSettings
from grm_server.settings.grouping import GroupingSettings
from grm_server.settings.http import HTTPSettings, LimitSettings
from grm_server.settings.judging import JudgeSettings, StoppingSettings
from grm_server.settings.loading import SettingsError, as_markdown, load_settings
from grm_server.settings.trainers import RewardScale, TrainerSettings
from grm_server.settings.tree import Settings

__all__ = [
    "MIN_KEY",
    "AuthSettings",
    "EngineSettings",
    "GroupingSettings",
    "HTTPSettings",
    "JudgeSettings",
    "KeyName",
    "LimitSettings",
    "MetaRMSettings",
    "RewardScale",
    "Settings",
    "SettingsError",
    "StoppingSettings",
    "SupervisionSettings",
    "TrainerSettings",
    "as_markdown",
    "load_settings",
]
