"""The modules that one plain request crosses.

    python -m tests.trace_request [--modules]

One `POST /v1/rewards` (n = 2, k = 4, rule fixed) goes through the whole app around the fake engine, once to warm up and
once under `sys.setprofile`. A call counts where a function of `grm_server` is entered; a switch counts where that
function's module is another than the last one's.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from types import FrameType

import httpx

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.settings import load_settings

BODY = {"query": "Why is the sky blue?", "responses": ["Rayleigh scattering.", "It is not."], "k": 4, "seed": 1}


@dataclass
class Trace:
    modules: Counter[str] = field(default_factory=Counter)
    """Calls by module, in the order of the first one."""
    switches: int = 0
    last: str = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if event != "call" or not name.startswith("grm_server."):
            return
        self.modules[name] += 1
        self.switches += name != self.last
        self.last = name


async def trace() -> Trace:
    found = Trace()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({}, (f"cache_dir={folder}", "stopping.rule=fixed", "stopping.audit_share=0"))
        app = create_app(settings, FakeEngine())
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                (await client.post("/v1/rewards", json=BODY)).raise_for_status()
                sys.setprofile(found)
                try:
                    (await client.post("/v1/rewards", json=BODY)).raise_for_status()
                finally:
                    sys.setprofile(None)
    return found


def main() -> None:
    found = asyncio.run(trace())
    if "--modules" in sys.argv[1:]:
        for name, calls in found.modules.items():
            print(f"{calls:5}  {name}")
    print(f"{len(found.modules)} modules, {found.modules.total()} calls, {found.switches} switches")


if __name__ == "__main__":
    main()
