"""Every error in one shape. The status of a GRMError stands on its class; FastAPI's own errors are put beside it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.schemas import ErrorDetail, ErrorResponse
from grm_server.errors import GRMError

logger = logging.getLogger(__name__)

_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def error_detail(error: GRMError) -> ErrorDetail:
    return ErrorDetail(
        code=error.code,
        message=error.message,
        param=error.param,
        retryable=error.retryable,
        details=dict(error.details),
    )


def error_response(error: GRMError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    later = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(
        ErrorResponse(error=error_detail(error)).model_dump(), error.status, {**later, **(headers or {})}
    )


def add_error_handlers(app: FastAPI) -> None:
    """Turn every failure of a request into an ErrorResponse."""

    @app.exception_handler(GRMError)
    async def grm_error(_: Request, error: GRMError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        # Never the input itself: it may hold what the policy wrote, and it may be large.
        first = error.errors()[0]
        param = _param(first["loc"])
        more = len(error.errors()) - 1
        message = f"{param or 'body'}: {first['msg']}" + (f" (and {more} more)" if more else "")
        return _answer(422, "invalid_body", message, param, False)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's answer to a body that the JSON parser chokes on
            return _answer(422, "invalid_body", "the body is not JSON", None, False)
        code = _HTTP_CODES.get(error.status_code, "http_error")
        return _answer(error.status_code, code, str(error.detail), None, False, headers=error.headers)


class UnexpectedErrors:
    """ASGI middleware: the last resort. Nothing gets past it to the web server, which would log the whole error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answered = False

        async def watch(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            detail = unexpected(error)
            if not answered:
                await JSONResponse(ErrorResponse(error=detail).model_dump(), 500)(scope, receive, send)


def unexpected(error: Exception) -> ErrorDetail:
    """What a caller is told of an error that nobody foresaw. Its message may quote a prompt; its type and place do not,
    and are logged."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("internal error: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
    message = "an error of the server; its log says where"
    return ErrorDetail(code="internal_error", message=message, param=None, retryable=False, details={})


def _param(loc: tuple[int | str, ...]) -> str | None:
    # A body that is not JSON has the place of the offending byte instead of a field.
    path = [str(part) for part in loc[1:] if isinstance(loc[-1], str) or len(loc) > 2]
    # pydantic puts the form that it read (of a query: text or messages; of a stop: its rule) into the path; a caller
    # knows no such form.
    if path[:1] in (["query"], ["stop"]):
        del path[1:2]
    # So does it write the type of text that it tried: function-after[...]. And a caller chooses the names of unknown
    # fields, and how long they are.
    return ".".join(part for part in path if not part.startswith("function-"))[:200] or None


def _answer(
    status: int,
    code: str,
    message: str,
    param: str | None,
    retryable: bool,
    *,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    detail = ErrorDetail(code=code, message=message, param=param, retryable=retryable, details={})
    return JSONResponse(ErrorResponse(error=detail).model_dump(), status, dict(headers or {}))
