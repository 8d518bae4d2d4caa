"""Who may ask, and where that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints

from grm_server.settings.section import Section

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Names stand in logs and metrics; keys never do."""
MIN_KEY = 16
"""Characters. A key is random and is looked up, not remembered; short ones are guessed."""


def _named(value: Any) -> Any:
    return {"default": value} if isinstance(value, str) else value


class AuthSettings(Section):
    keys: Annotated[dict[KeyName, Annotated[SecretStr, Field(min_length=MIN_KEY)]], BeforeValidator(_named)] = {}
    """API keys without limits of their own: one key, or a JSON object of names and keys. Set it in the environment
    (`GRM_AUTH__KEYS`); a command line can be read by others."""
    keys_file: Path | None = None
    """A TOML file of API keys and their limits, read again when it changes (docs/security.md)."""
    open: bool = False
    """Serve without keys also where others can reach the server: on a network of your own, or behind a proxy that
    asks for keys."""
