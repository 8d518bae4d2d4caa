"""The reward protocols of trainers, a module for each: convert, call, convert back.

Where the trainer sends one response at a time, `single` gathers those to one prompt; where it sends all, `grouped`
judges them as they are.
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


def trainers_router() -> APIRouter:
    router = APIRouter(tags=["trainers"])
    for protocol in (openrlhf, slime, llama_factory, nemo_gym, chat, rerank, reward_anything):
        router.include_router(protocol)
    return router
