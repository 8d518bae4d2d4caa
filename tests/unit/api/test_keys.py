"""The file of API keys: what it may say, and what becomes of it while the server runs."""

import logging
import os
from pathlib import Path

import pytest

from grm_server.api.middleware.keys import Callers, KeysError, key_digest, read_keys
from grm_server.errors import RateLimited
from tests.unit.clock import Clock

ONE, TWO = "one-key-of-24-characters", "two-key-of-24-characters"


def write(path: Path, text: str) -> None:
    """As an operator should: whole, in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, path)


def name(callers: Callers, key: str) -> str | None:
    found = callers.find(key)
    return None if found is None else found.name


def test_keys_by_text_by_digest_and_several_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    write(
        path,
        f'[a]\nkey = "{ONE}"\n'
        f'[b]\nsha256 = ["{key_digest(TWO).hex()}", "{key_digest("another one of mine").hex().upper()}"]\n',
    )
    callers = Callers({"env": "the environment's key"}, path, Clock())
    assert [name(callers, key) for key in (ONE, TWO, "another one of mine", "the environment's key")] == [
        "a",
        "b",
        "b",
        "env",
    ]
    for wrong in ("", "x", ONE[:-1], ONE + "x", ONE.upper(), key_digest(TWO).hex(), "\ud800", "\x00"):
        assert callers.find(wrong) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no keys"),
        ("[a]\n", "neither key nor sha256"),
        ('[a]\nkey = "SECRET"\n', "a: .*fewer than 16"),
        ('[a]\nsha256 = "SECRETSECRETSECRETSECRET"\n', "a: .*64 hex"),
        ('[a]\nkey = "SECRETSECRETSECRET"\nmax_kk = 3\n', "max_kk"),
        ('[a]\nkey = "SECRETSECRETSECRET"\nmax_k = 0\n', "max_k"),
        ('["a b"]\nkey = "SECRETSECRETSECRET"\n', "pattern"),
        ('[a]\nkey = "SECRETSECRETSECRET"\n[b]\nkey = "SECRETSECRETSECRET"\n', "b: has a key of a"),
        ('[a]\nkey = "SECRETSECRETSECRET\n', r"not TOML: \(at line 2"),
        ('[a]\nkey = ["SECRETSECRETSECRET", 1]\n', r"a\.key"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(text: str, complaint: str) -> None:
    with pytest.raises(KeysError, match=complaint) as error:
        read_keys(text)
    assert "SECRET" not in str(error.value)


def test_keys_come_and_go_while_the_server_runs(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    write(path, f'[a]\nkey = "{ONE}"\n')
    callers = Callers({}, path, clock)
    write(path, f'[b]\nkey = "{TWO}"\n')
    assert name(callers, ONE) == "a", "the file is looked at once a second at most"
    clock.now_s += 1
    assert callers.find(ONE) is None
    assert name(callers, TWO) == "b"


def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    write(path, f'[a]\nkey = "{ONE}"\n')
    callers = Callers({}, path, clock)
    for broken in (f'[a]\nkey = "{TWO}', "", None):
        if broken is None:
            path.unlink()
        else:
            write(path, broken)
        caplog.clear()
        for _ in range(3):
            clock.now_s += 1
            assert name(callers, ONE) == "a"
        assert caplog.text.count("stay valid") == 1, "said once, not every second"
        assert ONE not in caplog.text
        assert TWO not in caplog.text
    write(path, f'[b]\nkey = "{TWO}"\n')
    clock.now_s += 1
    assert (name(callers, ONE), name(callers, TWO)) == (None, "b")


def test_what_was_used_up_stays_so_when_another_key_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    limited = f'[a]\nkey = "{ONE}"\nrequests_per_minute = 1\n'
    write(path, limited)
    callers = Callers({}, path, clock)
    first = callers.find(ONE)
    assert first is not None
    first.take_request()
    write(path, limited + f'[b]\nkey = "{TWO}"\n')
    clock.now_s += 1
    again = callers.find(ONE)
    assert again is not None
    with pytest.raises(RateLimited):
        again.take_request()
    write(path, limited.replace("= 1", "= 100"))
    clock.now_s += 1
    raised = callers.find(ONE)
    assert raised is not None
    raised.take_request()


def test_a_file_that_is_not_there_or_clashes_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        Callers({}, tmp_path / "none.toml", Clock())
    write(tmp_path / "keys.toml", f'[a]\nkey = "{ONE}"\n')
    with pytest.raises(KeysError, match=r"a is also in auth\.keys"):
        Callers({"a": TWO}, tmp_path / "keys.toml", Clock())


def test_keys_that_others_can_read_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'[a]\nkey = "{ONE}"\n')
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Callers({}, path, Clock())
        assert "other users of this machine" in caplog.text
        caplog.clear()
        path.write_text(f'[a]\nsha256 = "{key_digest(ONE).hex()}"\n')
        Callers({}, path, Clock())
    assert not caplog.text
