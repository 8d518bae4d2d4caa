"""Folders that are made once and kept in the cache, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp

_MANIFEST = "manifest.json"


class ArtifactNotCached(RuntimeError):
    """The cache cannot hold what is to be made; the message says why and what to do."""


def prepared(cache_dir: Path, name: str, source: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made first if it is not there, not whole, or from another source.

    source: tells what it is made from; another one has it made again.
    make: fills an empty folder.

    A run that is killed leaves nothing that counts: the folder is written beside its place and moved there whole, with
    the checksum of every file. Two processes at once do the work once. Raises what `make` raises, and ArtifactNotCached
    when the cache cannot be written.
    """
    from filelock import FileLock

    cache_dir = cache_dir.expanduser()
    place = cache_dir / name
    # Nothing is written where it is there already: the cache may be shared and read-only.
    if is_whole(place, source):
        return place
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{name}.lock"):
            if not is_whole(place, source):
                _make(place, source, make)
    except OSError as error:
        if error.errno is None:  # not the system's, but of `make`
            raise
        raise ArtifactNotCached(_not_prepared(place, error.strerror or str(error))) from error
    return place


def run_aside(command: Sequence[str], target: Path) -> None:
    """Run a command that fills the folder `target`. Raises ArtifactNotCached with the last line that it printed."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = [line for line in (done.stderr or "").splitlines() if line.strip()]
        why = (
            f"killed by signal {-done.returncode}"
            if done.returncode < 0
            else said[-1]
            if said
            else "it did not say why"
        )
        raise ArtifactNotCached(_not_prepared(target.parent / target.name.partition(".partial-")[0], why))


def _not_prepared(place: Path, why: str) -> str:
    return (
        f"{place.name} could not be prepared in {place.parent}: {why.strip()}. The folder must be writable, with room "
        "for 600 MB: make it so, or choose another with --set cache_dir=PATH"
    )


def _make(place: Path, source: str, make: Callable[[Path], None]) -> None:
    for leftover in place.parent.glob(f"{place.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    try:
        make(partial)
        manifest = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / _MANIFEST).write_text(json.dumps({"source": source, "files": manifest}, indent=1))
    except Exception:
        # A full disk should not stay full of it.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)


def is_whole(place: Path, source: str) -> bool:
    """Whether the folder is there, made from this source, with every file as it was written."""
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
