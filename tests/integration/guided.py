"""Requests to a server with a meta RM."""

from typing import Any

import httpx

from tests.integration import judging

PAIR = judging.PAIR | {"k": 4, "return_samples": True}


async def post(client: httpx.AsyncClient, status: int = 200, **changes: Any) -> dict[str, Any]:
    return await judging.post(client, status, **(PAIR | changes))
