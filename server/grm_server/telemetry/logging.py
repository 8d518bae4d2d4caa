"""Logs on stderr, as text or JSON. Prompts, responses and keys are never logged."""

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
"""The JSON format for vLLM, which reads this file in each of its processes."""


class TextLines(logging.Formatter):
    """One line of text: time, level, logger, message, then facts as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        return super().formatMessage(record) + facts


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, then facts; `exception` is a traceback."""

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
        # ASCII: some log readers end a line at U+2028 and similar characters.
        return json.dumps(line, default=str)


def set_up_logging(level: str, form: LogFormat = "text") -> None:
    """Send the logs of this process to stderr. VLLM_LOGGING_LEVEL is vLLM's level.

    Call it before vLLM is imported. Other libraries are logged from WARNING on.
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
                # vLLM configures its own logger, but only after its first warnings.
                "vllm": {"handlers": ["stderr"], "level": _vllm_level(), "propagate": False},
            },
        }
    )
    if form == "json":
        os.environ.setdefault("VLLM_LOGGING_CONFIG_PATH", str(VLLM_CONFIG))


def vllm_handler() -> logging.Handler:
    """The handler in `vllm_logging.json`. It sets the level too: a file cannot refer to VLLM_LOGGING_LEVEL."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger("vllm").setLevel(_vllm_level())
    return handler


def with_facts(facts: Mapping[str, Fact]) -> dict[str, Mapping[str, Fact]]:
    """`extra` of a logging call: names and values that JSON keeps separate from the message."""
    return {"facts": facts}


def _vllm_level() -> str:
    return os.environ.get("VLLM_LOGGING_LEVEL", "ERROR").upper()


def _facts(record: logging.LogRecord) -> dict[str, Fact]:
    context = current_request.get()
    facts: Mapping[str, Fact] = getattr(record, "facts", {})
    return {**facts, **({} if context is None else context.names())}
