"""URLs and keys on the command line."""

import pytest

from tests.integration.processes import grm_here


@pytest.mark.parametrize("command", [["score", "-"], ["doctor"], ["demo", "examples"]])
@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "ftp://judge"])
def test_an_impossible_url_is_refused_in_one_line(command: list[str], url: str) -> None:
    done = grm_here(*command, "--url", url)
    assert done.returncode == 2
    assert done.stderr.startswith("grm: the server's URL")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["score", "-"], ["doctor", "--url", "judge"], ["demo", "examples"]])
def test_an_impossible_key_is_refused_without_printing_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRM_CLIENT_API_KEY", "grm-sécret")
    done = grm_here(*command, stdin='{"query": "Q", "responses": ["A."]}\n')
    assert (done.returncode, done.stderr.startswith("grm: GRM_CLIENT_API_KEY: ")) == (2, True)
    assert "cret" not in done.stdout + done.stderr


def test_doctor_names_an_unknown_host() -> None:
    done = grm_here("doctor", "--url", "judge.invalid:8000")
    assert done.returncode == 1
    assert "does not resolve" in done.stdout


def test_version() -> None:
    assert "grm-client" in grm_here("--version").stdout
