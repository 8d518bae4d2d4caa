"""The server's metrics, parsed."""

import httpx


def series(exposition: str) -> dict[str, float]:
    """Series -> value, from Prometheus' text format."""
    lines = (line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """Series -> value of the server's own metrics, without those of Python and vLLM."""
    values = series((await client.get("/metrics")).text)
    return {name: value for name, value in values.items() if name.startswith("grm_")}
