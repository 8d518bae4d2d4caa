"""API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints

from grm_server.settings.section import Section

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Names appear in logs and metrics; keys never do."""
MIN_KEY = 16
"""Minimum length of a key in characters. Short keys can be guessed."""


def _named(value: Any) -> Any:
    return {"default": value} if isinstance(value, str) else value


class AuthSettings(Section):
    keys: Annotated[dict[KeyName, Annotated[SecretStr, Field(min_length=MIN_KEY)]], BeforeValidator(_named)] = {}
    """API keys without limits: one key, or a JSON object of names and keys. Set it in the environment
    (`GRM_AUTH__KEYS`): other users of the machine can read a command line."""
    keys_file: Path | None = None
    """A TOML file of API keys and their limits, reloaded when it changes (docs/security.md)."""
    open: bool = False
    """Serve without keys even if other machines can reach the server. For a private network, or behind a proxy that
    checks keys."""
