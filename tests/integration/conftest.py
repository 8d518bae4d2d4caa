"""The real app around a fake engine, in this process, without a network."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeSampler
from grm_server.settings import load_settings

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """serve(sampler, "limits.max_k=4", ...): a client of the app with that sampler and those settings.

    All k samples are drawn unless a request says otherwise; what is learnt goes to a folder of the test.
    """

    @asynccontextmanager
    async def serving(sampler: FakeSampler, *overrides: str) -> AsyncIterator[httpx.AsyncClient]:
        quiet = (f"cache_dir={tmp_path}", "stopping.rule=fixed", "stopping.audit_share=0", "stopping.speculate_below=0")
        app = create_app(load_settings({}, (*quiet, *overrides)), sampler)
        # ASGITransport does not run the lifespan, in which the engine starts and ends.
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://grm") as client:
                yield client

    return serving
