"""The base install (`pip install ./clients .`) in an environment of its own."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "serve",
    "score",
    "calibrate",
    "collect",
    "train-meta-rm",
    "doctor",
    "demo",
    "new-key",
    "settings",
    "openapi",
)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with both wheels and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    for name in ("clients", "server", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    venv.create(folder / "venv", with_pip=False)
    commands = folder / "venv" / "bin"
    # The pip of this environment installs into the other one.
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "-q", "./clients", "."], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return commands


def environment(**variables: str) -> dict[str, str]:
    """This environment without what would let the light install see this tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRM_", "COV"))}
    return kept | variables


def run(light: Path, *arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [light / "grm", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT / "docs",
        env=environment(**variables),
    )


def test_every_command_prints_its_help(light: Path) -> None:
    assert run(light, "--help").returncode == 0
    for command in COMMANDS:
        done = run(light, command, "--help", PYTHONIOENCODING="ascii")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_version(light: Path) -> None:
    done = run(light, "--version")
    assert done.stdout.startswith("grm-server 0.")
    assert "grm-client 0." in done.stdout


def test_the_clients_commands_work(light: Path, url: str, tmp_path: Path) -> None:
    row = '{"query": "Q", "responses": ["A."], "label": 1}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    scored = run(light, "score", "-", "--url", url, stdin='{"query": "Q", "responses": ["A."]}\n')
    collected = run(light, "collect", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--url", url)
    checked = run(light, "doctor", "--url", url)
    shown = run(light, "demo", str(ROOT / "examples"), "--url", url, PYTHONIOENCODING="ascii")
    for done in (scored, collected, checked, shown):
        assert done.returncode == 0, done.stderr
    assert run(light, "settings").returncode == run(light, "new-key", "me").returncode == 0


def test_doctor_names_what_is_missing(light: Path, tmp_path: Path) -> None:
    done = run(light, "doctor", "--set", f"cache_dir={tmp_path}", "--set", "meta_rm.model=bundled")
    assert done.returncode == 1
    assert "not installed: fastapi" in done.stdout
    assert "make setup" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["openapi"], ["calibrate", "x"], ["train-meta-rm", "x", "--base", "bundled", "-o", "y"],
     ["collect", "x", "-o", "y", "--format", "llamafactory"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_other_commands_name_the_extra_in_one_line(light: Path, arguments: list[str]) -> None:
    done = run(light, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "make setup" in done.stderr
    assert "./clients '.[cpu]'" in done.stderr
