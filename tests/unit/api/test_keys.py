"""The keys file: its contents, and changes while the server runs."""

import logging
import os
from pathlib import Path

import pytest

from grm_server.api.middleware.keys import Callers, KeysError, key_digest, read_keys
from grm_server.errors import RateLimited
from tests.unit.clock import Clock

ONE, TWO = "one-key-of-24-characters", "two-key-of-24-characters"


def write(path: Path, text: str) -> None:
    """Replace the file atomically, as an operator should."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, path)


def name(callers: Callers, key: str) -> str | None:
    caller = callers.find(key)
    return None if caller is None else caller.name


def test_keys_as_text_or_digest_and_several_with_one_name(tmp_path: Path) -> None:
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
def test_error_texts_do_not_show_the_key(text: str, complaint: str) -> None:
    with pytest.raises(KeysError, match=complaint) as error:
        read_keys(text)
    assert "SECRET" not in str(error.value)


def test_keys_change_while_the_server_runs(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    write(path, f'[a]\nkey = "{ONE}"\n')
    callers = Callers({}, path, clock)
    write(path, f'[b]\nkey = "{TWO}"\n')
    assert name(callers, ONE) == "a", "the file is checked at most once a second"
    clock.now_s += 1
    assert callers.find(ONE) is None
    assert name(callers, TWO) == "b"


def test_an_invalid_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        assert caplog.text.count("stay valid") == 1, "logged once, not every second"
        assert ONE not in caplog.text
        assert TWO not in caplog.text
    write(path, f'[b]\nkey = "{TWO}"\n')
    clock.now_s += 1
    assert (name(callers, ONE), name(callers, TWO)) == (None, "b")


def test_buckets_stay_when_another_key_changes(tmp_path: Path) -> None:
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


def test_a_missing_or_conflicting_file_raises(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        Callers({}, tmp_path / "none.toml", Clock())
    write(tmp_path / "keys.toml", f'[a]\nkey = "{ONE}"\n')
    with pytest.raises(KeysError, match=r"a is also in auth\.keys"):
        Callers({"a": TWO}, tmp_path / "keys.toml", Clock())


def test_readable_key_files_give_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
