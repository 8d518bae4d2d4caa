"""`/docs`: Swagger UI, from files of this package, so that the page works without the internet."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_TYPES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
}
ASSETS = frozenset(f"/docs/{name}" for name in _TYPES)

# All addresses are relative, so the page also works behind a proxy that adds a path prefix.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>GRM Server</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# A file of its own, because the page's Content-Security-Policy forbids inline scripts.
_START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, showExtensions: true, showCommonExtensions: true,
});
"""


@router.get("/docs")
async def page() -> HTMLResponse:
    """Swagger UI over `/openapi.json`."""
    return HTMLResponse(_PAGE)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A script or the style sheet of the page. The two large ones are stored compressed; every browser unpacks gzip."""
    if name not in _TYPES:
        raise HTTPException(404)
    if name == "start.js":
        return Response(_START, media_type=_TYPES[name])
    packed = files("grm_server.api").joinpath("swagger_ui", f"{name}.gz").read_bytes()
    return Response(packed, media_type=_TYPES[name], headers={"Content-Encoding": "gzip"})
