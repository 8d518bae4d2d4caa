"""The reward protocols of trainers, a module for each: convert, call, convert back.

Where the trainer sends one response at a time, `single` gathers those to one prompt; where it sends all, `grouped`
judges them as they are.
"""

from __future__ import annotations

from fastapi import APIRouter

from grm_server.api.trainers import chat, llama_factory, nemo_gym, openrlhf, rerank, reward_anything, slime


def trainers_router() -> APIRouter:
    router = APIRouter(tags=["trainers"])
    for module in (openrlhf, slime, llama_factory, nemo_gym, chat, rerank, reward_anything):
        router.include_router(module.router)
    return router
