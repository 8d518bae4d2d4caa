"""The protocols of trainers and other clients, one module each: convert the request, judge, convert the result.

Responses that a trainer sends one by one are grouped by `single_responses`; whole groups go to `batch`.
"""

from __future__ import annotations

from fastapi import APIRouter

from grm_server.api.protocols.chat import router as chat
from grm_server.api.protocols.llama_factory import router as llama_factory
from grm_server.api.protocols.nemo_gym import router as nemo_gym
from grm_server.api.protocols.openrlhf import router as openrlhf
from grm_server.api.protocols.rerank import router as rerank
from grm_server.api.protocols.reward_anything import router as reward_anything
from grm_server.api.protocols.slime import router as slime


def protocols_router() -> APIRouter:
    """All protocols."""
    router = APIRouter(tags=["trainers"])
    for protocol in (openrlhf, slime, llama_factory, nemo_gym, chat, rerank, reward_anything):
        router.include_router(protocol)
    return router
