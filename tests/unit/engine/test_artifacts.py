"""A cache that cannot hold what it must says so, and what to do."""

import errno
import sys
from pathlib import Path

import pytest

from grm_server.engine.artifacts import ArtifactNotCached, prepared, run_aside


def fill(target: Path) -> None:
    (target / "weights").write_bytes(b"w")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        ArtifactNotCached, match=r"model could not be prepared in .*/file/cache: Not a directory.*cache_dir="
    ):
        prepared(tmp_path / "file" / "cache", "model", "s", fill)


def test_a_full_disk_is_named_and_not_left_full(tmp_path: Path) -> None:
    def full(target: Path) -> None:
        fill(target)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ArtifactNotCached, match=r"No space left on device.*cache_dir="):
        prepared(tmp_path, "model", "s", full)
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (
            "import sys; print('Traceback', file=sys.stderr); sys.exit('OSError: No space left on device')",
            "No space left",
        ),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("raise SystemExit(3)", "did not say why"),
    ],
)
def test_a_process_of_its_own_that_fails_says_why(tmp_path: Path, program: str, why: str) -> None:
    def make(target: Path) -> None:
        run_aside([sys.executable, "-c", program], target)

    with pytest.raises(ArtifactNotCached, match=rf"^model could not be prepared in {tmp_path}: .*{why}"):
        prepared(tmp_path, "model", "s", make)
    assert not list(tmp_path.glob("*.partial-*"))


def test_what_is_there_needs_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepared(tmp_path, "model", "s", fill)
    (tmp_path / "model.lock").unlink()
    assert prepared(tmp_path, "model", "s", fill) == place
    assert not (tmp_path / "model.lock").exists()
