"""The formats that this server's judge can be asked in, and which one a request gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grm_server.errors import InvalidRequest
from grm_server.grm.prompts import JudgeFormat


@dataclass(frozen=True, slots=True)
class Formats:
    """The loaded formats."""

    by_name: Mapping[str, JudgeFormat]
    default: str
    """The one for requests that name none."""

    def named(self, name: str | None) -> JudgeFormat:
        """Raises InvalidRequest for a format that is not loaded."""
        form = self.by_name.get(name or self.default)
        if form is None:
            raise InvalidRequest(
                f"format {name!r} is not loaded on this server; it has {', '.join(sorted(self.by_name))} "
                "(setting judge.formats)",
                param="format",
            )
        return form
