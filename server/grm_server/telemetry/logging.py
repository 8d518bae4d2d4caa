"""Logs on stderr, as text or as JSON. No prompt, response or key is ever logged."""

from __future__ import annotations

import json
import logging.config
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from grm_server.telemetry.context import Fact, current_request

LogFormat = Literal["text", "json"]
VLLM_CONFIG = Path(__file__).parent / "vllm_logging.json"
"""The same for vLLM, which reads it in each of its processes."""


class TextLines(logging.Formatter):
    """One line for people: time, level, logger, message, then what is known as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        return super().formatMessage(record) + facts


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, then what is known; `exception` is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Fact] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _facts(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII: some readers of logs take U+2028 and its like for the end of a line.
        return json.dumps(line, default=str)


def set_up_logging(level: str, form: LogFormat = "text") -> None:
    """Send the log of this process to stderr. vLLM's own level is VLLM_LOGGING_LEVEL.

    Call it before vLLM is imported. Libraries that say nothing about their logs are heard from WARNING on.
    """
    lines = {"text": TextLines, "json": JsonLines}[form]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": lines}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
            "loggers": {
                "grm_server": {"handlers": ["stderr"], "level": level, "propagate": False},
                "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
                # Until it sets itself up, which it does after its first warnings.
                "vllm": {"handlers": ["stderr"], "level": _vllm_level(), "propagate": False},
            },
        }
    )
    if form == "json":
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(VLLM_CONFIG))


def vllm_handler() -> logging.Handler:
    """What `vllm_logging.json` asks for. A file cannot say that the level is the one of VLLM_LOGGING_LEVEL."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger("vllm").setLevel(_vllm_level())
    return handler


def with_facts(facts: Mapping[str, Fact]) -> dict[str, Mapping[str, Fact]]:
    """`extra` of a logging call: names and values that JSON keeps apart from the message."""
    return {"facts": facts}


def _vllm_level() -> str:
    return os.environ.get("VLLM_LOGGING_LEVEL", "ERROR").upper()


def _facts(record: logging.LogRecord) -> dict[str, Fact]:
    context = current_request.get()
    facts: Mapping[str, Fact] = getattr(record, "facts", {})
    return {**facts, **({} if context is None else context.names())}
