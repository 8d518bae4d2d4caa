"""Cached artifacts: folders that are made once, atomically, and checked by checksum before use."""

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
    """The artifact could not be written to the cache. The message says why and what to do."""


def cached_artifact(cache_dir: Path, name: str, source: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` in the cache. Makes it first if it is missing, damaged, or made from another source.

    source: identifies the input; a change causes a rebuild.
    make: fills an empty folder.

    We fill a temporary folder, add a checksum of every file, and rename it, so a killed run leaves nothing that counts
    as complete. A file lock keeps two processes from doing the work twice. Raises what `make` raises, and
    ArtifactNotCached if the cache cannot be written.
    """
    from filelock import FileLock

    cache_dir = cache_dir.expanduser()
    folder = cache_dir / name
    # Check before locking: the cache may be shared and read-only.
    if is_complete(folder, source):
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{name}.lock"):
            if not is_complete(folder, source):
                _make(folder, source, make)
    except OSError as error:
        if error.errno is None:  # raised by `make`, not by the operating system
            raise
        raise ArtifactNotCached(_not_cached(folder, error.strerror or str(error))) from error
    return folder


def run_subprocess(command: Sequence[str], target: Path) -> None:
    """Run a command that fills the folder `target`. Raises ArtifactNotCached with its last line of standard error."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr or "").splitlines() if line.strip()]
        reason = (
            f"killed by signal {-done.returncode}"
            if done.returncode < 0
            else lines[-1]
            if lines
            else f"the subprocess ended with exit code {done.returncode} and no error message"
        )
        raise ArtifactNotCached(_not_cached(target.parent / target.name.partition(".partial-")[0], reason))


def _not_cached(folder: Path, reason: str) -> str:
    return (
        f"{folder.name} could not be prepared in {folder.parent}: {reason.strip()}. The folder must be writable and "
        "have 600 MB of free space; to use another one, --set cache_dir=PATH"
    )


def _make(folder: Path, source: str, make: Callable[[Path], None]) -> None:
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        make(partial)
        manifest = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / _MANIFEST).write_text(json.dumps({"source": source, "files": manifest}, indent=1))
    except Exception:
        # Free the space, above all if the disk is full.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def is_complete(folder: Path, source: str) -> bool:
    """Whether the folder exists, was made from this source, and every file has its checksum."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        return manifest["source"] == source and all(
            sha256(folder / name) == checksum for name, checksum in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
