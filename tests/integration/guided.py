"""A request for a vote under a meta RM."""

from typing import Any

import httpx

PAIR = {"query": "Why?", "responses": ["A.", "B."], "k": 4, "seed": 5, "return_samples": True}


async def post(client: httpx.AsyncClient, status: int = 200, **changes: Any) -> dict[str, Any]:
    response = await client.post("/v1/rewards", json=PAIR | changes)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer
