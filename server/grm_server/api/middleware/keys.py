"""API keys from the settings and from a file, which may change while the server runs.

    [trainer-a]                        # the key's name, for logs and metrics
    sha256 = "9f86d0..."               # of the key; or key = "..."; or a list, while a key is replaced
    requests_per_minute = 600          # these three are optional
    samples_per_minute = 20000
    max_k = 32

Only digests are kept in memory. A request's key is hashed and compared with every digest in constant time, without an
early exit, so timing reveals nothing about the keys.
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

from grm_server.api.quota import Caller
from grm_server.settings import MIN_KEY, KeyName

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""Least time between two checks for a changed file."""

_HEX = re.compile(r"[0-9a-fA-F]{64}")


class KeysError(ValueError):
    """The keys file is unusable. The message holds no key."""


class Entry(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: str | list[str] = []
    sha256: str | list[str] = []
    requests_per_minute: int | None = Field(None, ge=1)
    samples_per_minute: int | None = Field(None, ge=1)
    max_k: int | None = Field(None, ge=1)

    def digests(self) -> list[bytes]:
        """Raises ValueError for malformed keys."""
        keys, hashes = _as_list(self.key), _as_list(self.sha256)
        if not keys and not hashes:
            raise ValueError("has neither key nor sha256")
        if any(len(key) < MIN_KEY for key in keys):
            raise ValueError(f"a key has fewer than {MIN_KEY} characters")
        if not all(_HEX.fullmatch(one) for one in hashes):
            raise ValueError("sha256 is not 64 hexadecimal digits")
        return [key_digest(key) for key in keys] + [bytes.fromhex(one) for one in hashes]


_FILE: TypeAdapter[dict[str, Entry]] = TypeAdapter(dict[KeyName, Entry])


def key_digest(key: str) -> bytes:
    """(32,), SHA-256. A slow hash is not needed: keys are random, so a dictionary attack is hopeless."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(text: str) -> dict[str, Entry]:
    """Name -> entry of a keys file. Raises KeysError."""
    try:
        entries = _FILE.validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # Only the place: the rest of the message may quote the file.
        raise KeysError(f"not TOML: {re.sub(r'[^(]*', '', str(error), count=1) or 'an error'}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise KeysError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not entries:
        raise KeysError("the file holds no keys")
    owners: dict[bytes, str] = {}
    for name, entry in entries.items():
        try:
            for one in entry.digests():
                if owners.setdefault(one, name) != name:
                    raise ValueError(f"has a key of {owners[one]}")
        except ValueError as error:
            raise KeysError(f"{name}: {error}") from None
    return entries


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    caller: Caller


class Callers:
    """The holders of valid keys. When the file changes, keys with unchanged limits keep their buckets."""

    def __init__(self, keys: Mapping[str, str], file: Path | None, clock: Callable[[], float]) -> None:
        """keys: name -> key, without limits. Raises KeysError for an unusable file."""
        self._from_settings = {name: Entry(key=key) for name, key in keys.items()}
        self._file = file
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._callers: dict[str, Caller] = {}
        self._keys: tuple[_Key, ...] = ()
        self._checked_s = clock()
        self._signature = self._file_signature()
        self._use(self._read())

    def find(self, key: str) -> Caller | None:
        """The holder of `key`; None if it is not valid."""
        self._reload_if_changed()
        digest, caller = key_digest(key), None
        for known in self._keys:
            if hmac.compare_digest(known.digest, digest):
                caller = known.caller
        return caller

    def _reload_if_changed(self) -> None:
        """An unusable file is logged and changes nothing."""
        now_s = self._clock()
        if self._file is None or now_s - self._checked_s < CHECK_S:
            return
        self._checked_s = now_s
        signature = self._file_signature()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._use(self._read())
        except KeysError as error:
            logger.error("auth.keys_file not reloaded: %s; the previous keys stay valid", error)
        else:
            logger.info("auth.keys_file reloaded: %d keys", len(self._keys))

    def _file_signature(self) -> tuple[int, ...] | None:
        try:
            stat = None if self._file is None else self._file.stat()
        except OSError:
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self) -> dict[str, Entry]:
        if self._file is None:
            return self._from_settings
        try:
            entries = read_keys(self._file.read_text("utf-8"))
            open_to_others = self._file.stat().st_mode & 0o077
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{self._file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        except KeysError as error:
            raise KeysError(f"{self._file}: {error}") from None
        if both := self._from_settings.keys() & entries.keys():
            raise KeysError(f"{self._file}: {min(both)} is also in auth.keys")
        if open_to_others and any(entry.key for entry in entries.values()):
            logger.warning(
                "auth.keys_file: other users of this machine may read the keys in %s; run chmod 600 on it, or store "
                "sha256 instead of key",
                self._file,
            )
        return {**self._from_settings, **entries}

    def _use(self, entries: dict[str, Entry]) -> None:
        callers = {
            name: self._callers[name] if self._same_limits(name, entry) else self._new_caller(name, entry)
            for name, entry in entries.items()
        }
        self._keys = tuple(_Key(one, callers[name]) for name, entry in entries.items() for one in entry.digests())
        self._entries, self._callers = entries, callers

    def _same_limits(self, name: str, entry: Entry) -> bool:
        known = self._entries.get(name)
        without_keys: dict[str, object] = {"key": [], "sha256": []}
        return known is not None and known.model_copy(update=without_keys) == entry.model_copy(update=without_keys)

    def _new_caller(self, name: str, entry: Entry) -> Caller:
        requests, samples, max_k = entry.requests_per_minute, entry.samples_per_minute, entry.max_k
        return Caller(name, self._clock, requests_per_minute=requests, samples_per_minute=samples, max_k=max_k)


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
