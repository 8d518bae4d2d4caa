"""Folders that are made once and kept in the cache, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

_MANIFEST = "manifest.json"


def prepared(cache_dir: Path, name: str, source: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made first if it is not there, not whole, or from another source.

    source: tells what it is made from; another one has it made again.
    make: fills an empty folder.

    A run that is killed leaves nothing that counts: the folder is written beside its place and moved there whole, with
    the checksum of every file. Two processes at once do the work once. Raises what `make` raises, and OSError when the
    cache cannot be written.
    """
    from filelock import FileLock

    cache_dir = cache_dir.expanduser()
    cache_dir.mkdir(parents=True, exist_ok=True)
    place = cache_dir / name
    with FileLock(cache_dir / f"{name}.lock"):
        if not _is_whole(place, source):
            _make(place, source, make)
    return place


def _make(place: Path, source: str, make: Callable[[Path], None]) -> None:
    for leftover in place.parent.glob(f"{place.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    make(partial)
    manifest = {path.name: sha256(path) for path in sorted(partial.iterdir())}
    (partial / _MANIFEST).write_text(json.dumps({"source": source, "files": manifest}, indent=1))
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)


def _is_whole(place: Path, source: str) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        return manifest["source"] == source and all(
            sha256(place / name) == checksum for name, checksum in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
