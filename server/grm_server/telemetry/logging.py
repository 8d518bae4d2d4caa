"""Plain logs on stderr. No prompt, response or key is ever logged."""

from __future__ import annotations

import logging.config


def set_up_logging(level: str) -> None:
    """Send the log of this process to stderr. vLLM keeps its own logger; see VLLM_LOGGING_LEVEL."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
            "loggers": {
                "grm_server": {"handlers": ["stderr"], "level": level, "propagate": False},
                "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            },
        }
    )
