"""Errors of a cache that cannot be written name the cause and the fix."""

import errno
import sys
from pathlib import Path

import pytest

from grm_server.engine.artifacts import ArtifactNotCached, cached_artifact, run_subprocess


def fill(target: Path) -> None:
    (target / "weights").write_bytes(b"w")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ArtifactNotCached, match=r"model could not be prepared in .*/file/cache: Not a directory.*cache_dir="
    ):
        cached_artifact(tmp_path / "file" / "cache", "model", "s", fill)


def test_a_full_disk_is_reported_and_its_space_freed(tmp_path: Path) -> None:
    def full(target: Path) -> None:
        fill(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ArtifactNotCached, match=r"No space left on device.*cache_dir="):
        cached_artifact(tmp_path, "model", "s", full)
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (
            "import sys; print('Traceback', file=sys.stderr); sys.exit('OSError: No space left on device')",
            "No space left",
        ),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("raise SystemExit(3)", "exit code 3 and no error message"),
    ],
)
def test_the_error_of_a_failed_subprocess_is_reported(tmp_path: Path, program: str, why: str) -> None:
    def make(target: Path) -> None:
        run_subprocess([sys.executable, "-c", program], target)

    with pytest.raises(ArtifactNotCached, match=rf"^model could not be prepared in {tmp_path}: .*{why}"):
        cached_artifact(tmp_path, "model", "s", make)
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_cached_artifact_needs_no_write_access(tmp_path: Path) -> None:
    folder = cached_artifact(tmp_path, "model", "s", fill)
    (tmp_path / "model.lock").unlink()
    assert cached_artifact(tmp_path, "model", "s", fill) == folder
    assert not (tmp_path / "model.lock").exists()
