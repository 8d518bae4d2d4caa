"""API keys for tests, and headers to send them."""

import base64
from pathlib import Path

A, B = "key-of-trainer-a-00000001", "key-of-trainer-b-00000002"


def keys_file(tmp_path: Path, *, a: str = "", b: str = "") -> str:
    """The setting for a file with keys A and B, with limits for each."""
    path = tmp_path / "keys.toml"
    path.write_text(f'["trainer-a"]\nkey = "{A}"\n{a}\n["trainer-b"]\nkey = "{B}"\n{b}\n')
    path.chmod(0o600)
    return f"auth.keys_file={path}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
