"""What the server has counted, for tests."""

import httpx


def series(exposition: str) -> dict[str, float]:
    """Series -> value, of Prometheus' text format."""
    lines = (line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """Series -> value, of the server's own."""
    seen = series((await client.get("/metrics")).text)
    return {name: value for name, value in seen.items() if name.startswith("grm_")}
