"""The longest standstill of the event loop while costly bodies are judged by the fake engine.

python -m benchmarks.serving.standstill
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tempfile
import time
from typing import Any

import httpx

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.settings import load_settings

CHATML = "<|im_start|>user\nQ{}-{}<|im_end|>\n<|im_start|>assistant\nA."
DISTINCT = "".join(chr(code) for code in range(0x20, 0xE0000) if not 0xD800 <= code < 0xE000)[:900_000]


def singles(n: int) -> tuple[str, Any]:
    return "/get_reward?n=1", {"query": [CHATML.format(n, i) for i in range(n)]}


def one(response: str) -> tuple[str, Any]:
    return "/v1/rewards", {"query": "Q", "responses": [response]}


BODIES: dict[str, tuple[str, Any]] = {
    "9,000 single responses": singles(9000),
    "2,000 single responses": singles(2000),
    "1,000 single responses": singles(1000),
    "1.3 M U+FDFA": one("\ufdfa" * 1_300_000),
    "1 M U+FDFA": one("\ufdfa" * 1_000_000),
    "900,000 distinct characters": one(DISTINCT),
    "4 MB of ASCII": one("The quick brown fox. " * 199_000),
    "60 responses of 60 KB": ("/v1/rewards", {"query": "Q", "responses": ["The quick brown fox. " * 3000] * 60}),
    "1 MB of dashes": one("a" + "-" * 1_000_000),
}


async def main() -> None:
    # A refused response is logged, thousands of times here.
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(load_settings({}, [f"cache_dir={folder}"]), FakeEngine(max_running=64, recording=False))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=None)
        async with app.router.lifespan_context(app), client:
            await client.get("/health/live")
            # As `grm serve` does.
            gc.collect()
            gc.freeze()
            for name, (url, body) in BODIES.items():
                content = json.dumps(body, ensure_ascii=False).encode()
                longest_s, status = await standstill(client, url, content)
                print(f"{name:28} {len(content) / 1024:5.0f} KiB  {status}  {longest_s * 1000:5.0f} ms", flush=True)


async def standstill(client: httpx.AsyncClient, url: str, content: bytes) -> tuple[float, int]:
    """Seconds of the longest turn of the loop until the answer, and its status."""
    answer = asyncio.ensure_future(client.post(url, content=content, headers={"Content-Type": "application/json"}))
    longest_s, last_s = 0.0, time.perf_counter()
    while not answer.done():
        await asyncio.sleep(0)
        now_s = time.perf_counter()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s, answer.result().status_code


if __name__ == "__main__":
    asyncio.run(main())
