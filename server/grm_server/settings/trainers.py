"""How each trainer is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from grm_server.settings.names import RuleName
from grm_server.settings.section import Section

RewardScale = Literal["raw", "unit", "centered"]


class OpenRLHFSettings(Section):
    reward_scale: RewardScale = "raw"
    """`raw`: 1 to 10; `unit`: 0 to 1; `centered`: raw, less the mean of the responses that were judged together."""
    failure: Literal["neutral", "error"] = "neutral"
    """What a response gets that could not be judged: the middle of the scale, or an error, which ends training."""
    timeout_s: float = Field(180, gt=0)
    """Seconds after which the trainer gives up a request; it is a constant of OpenRLHF."""


class SlimeSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    failure: Literal["neutral", "none", "error"] = "neutral"
    """As `trainers.openrlhf.failure`; `none`: null, for a trainer that was taught to skip such a sample."""
    timeout_s: float = Field(110, gt=0)
    """slime gives up a request after 120 s, which include the wait for one of its 64 connections, and tries again."""


class LlamaFactorySettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    failure: Literal["neutral", "error"] = "neutral"
    """As `trainers.openrlhf.failure`."""
    timeout_s: float | None = Field(None, gt=0)
    """LLaMA-Factory never gives up."""


class NemoGymSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    timeout_s: float | None = Field(None, gt=0)
    """NeMo-Gym never gives up."""


class ChatSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    timeout_s: float | None = Field(None, gt=0)
    """Seconds after which clients give up."""


class RerankSettings(Section):
    reward_scale: RewardScale = "unit"
    """As `trainers.openrlhf.reward_scale`. Relevance is 0 to 1 elsewhere."""


class RewardAnythingSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""


class TrainerSettings(Section):
    stop: RuleName | None = "fixed"
    """When fewer than k readings are enough, if a trainer's URL does not say. `fixed` reads every response equally
    often and depends on nothing that traffic taught. None: `stopping.rule`."""
    openrlhf: OpenRLHFSettings = OpenRLHFSettings()
    slime: SlimeSettings = SlimeSettings()
    llama_factory: LlamaFactorySettings = LlamaFactorySettings()
    nemo_gym: NemoGymSettings = NemoGymSettings()
    chat: ChatSettings = ChatSettings()
    rerank: RerankSettings = RerankSettings()
    reward_anything: RewardAnythingSettings = RewardAnythingSettings()
