"""API keys: a file of them, which may change while the server runs, and who holds which.

    [trainer-a]                        # the key's name, for logs and metrics
    sha256 = "9f86d0..."               # of the key; or key = "..."; or a list, while a key is replaced
    requests_per_minute = 600          # these three may be left out
    samples_per_minute = 20000
    max_k = 32

Only digests are kept. A presented key is digested and compared with all of them, each in constant time and without an
early end, so that how long it takes says nothing about any of them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from grm_server.api.middleware.quota import Caller
from grm_server.settings import MIN_KEY, KeyName

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""The file is looked at so often at most."""

_HEX = re.compile(r"[0-9a-fA-F]{64}")


class KeysError(ValueError):
    """The file of keys cannot be used; the message names no key."""


class Entry(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: str | list[str] = []
    sha256: str | list[str] = []
    requests_per_minute: int | None = Field(None, ge=1)
    samples_per_minute: int | None = Field(None, ge=1)
    max_k: int | None = Field(None, ge=1)

    def digests(self) -> list[bytes]:
        """Raises ValueError for what cannot be a key."""
        keys, hashes = _several(self.key), _several(self.sha256)
        if not keys and not hashes:
            raise ValueError("has neither key nor sha256")
        if any(len(key) < MIN_KEY for key in keys):
            raise ValueError(f"a key has fewer than {MIN_KEY} characters")
        if not all(_HEX.fullmatch(one) for one in hashes):
            raise ValueError("sha256 is not 64 hexadecimal digits")
        return [digest(key) for key in keys] + [bytes.fromhex(one) for one in hashes]


_FILE: TypeAdapter[dict[str, Entry]] = TypeAdapter(dict[KeyName, Entry])


def digest(key: str) -> bytes:
    """(32,), SHA-256. No slow hash: keys are random, so there is nothing to guess with a dictionary."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(text: str) -> dict[str, Entry]:
    """The keys of a file by name. Raises KeysError."""
    try:
        entries = _FILE.validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # Without what stands there.
        raise KeysError(f"not TOML: {re.sub(r'[^(]*', '', str(error), count=1) or 'an error'}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise KeysError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not entries:
        raise KeysError("there are no keys in it")
    seen: dict[bytes, str] = {}
    for name, entry in entries.items():
        try:
            for one in entry.digests():
                if seen.setdefault(one, name) != name:
                    raise ValueError(f"has a key of {seen[one]}")
        except ValueError as error:
            raise KeysError(f"{name}: {error}") from None
    return entries


@dataclass(frozen=True, slots=True)
class _Held:
    digest: bytes
    caller: Caller


class Callers:
    """Who holds a valid key. Buckets outlive a change of the file that does not touch their key's limits."""

    def __init__(self, keys: Mapping[str, str], file: Path | None, clock: Callable[[], float]) -> None:
        """keys: by name, without limits. Raises KeysError for a file that cannot be used."""
        self._fixed = {name: Entry(key=key) for name, key in keys.items()}
        self._file = file
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._callers: dict[str, Caller] = {}
        self._held: tuple[_Held, ...] = ()
        self._looked_s = clock()
        self._seen = self._signature()
        self._take_over(self._read())

    def find(self, key: str) -> Caller | None:
        self._look()
        presented, found = digest(key), None
        for held in self._held:
            if hmac.compare_digest(held.digest, presented):
                found = held.caller
        return found

    def _look(self) -> None:
        """Read the file again if it is another one. A file that cannot be used changes nothing."""
        now_s = self._clock()
        if self._file is None or now_s - self._looked_s < CHECK_S:
            return
        self._looked_s = now_s
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._take_over(self._read())
        except KeysError as error:
            logger.error("auth.keys_file: %s; the keys from before stay valid", error)
        else:
            logger.info("auth.keys_file was read again: %d keys", len(self._held))

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = None if self._file is None else self._file.stat()
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read(self) -> dict[str, Entry]:
        if self._file is None:
            return self._fixed
        try:
            entries = read_keys(self._file.read_text("utf-8"))
            readable = self._file.stat().st_mode & 0o077
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{self._file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        except KeysError as error:
            raise KeysError(f"{self._file}: {error}") from None
        if both := self._fixed.keys() & entries.keys():
            raise KeysError(f"{self._file}: {min(both)} stands in auth.keys too")
        if readable and any(entry.key for entry in entries.values()):
            logger.warning("auth.keys_file: others on this machine may read the keys in %s", self._file)
        return {**self._fixed, **entries}

    def _take_over(self, entries: dict[str, Entry]) -> None:
        callers = {
            name: self._callers[name] if self._same_limits(name, entry) else self._caller(name, entry)
            for name, entry in entries.items()
        }
        self._held = tuple(_Held(one, callers[name]) for name, entry in entries.items() for one in entry.digests())
        self._entries, self._callers = entries, callers

    def _same_limits(self, name: str, entry: Entry) -> bool:
        known = self._entries.get(name)
        without: dict[str, object] = {"key": [], "sha256": []}
        return known is not None and known.model_copy(update=without) == entry.model_copy(update=without)

    def _caller(self, name: str, entry: Entry) -> Caller:
        requests, samples, max_k = entry.requests_per_minute, entry.samples_per_minute, entry.max_k
        return Caller(name, self._clock, requests_per_minute=requests, samples_per_minute=samples, max_k=max_k)


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
