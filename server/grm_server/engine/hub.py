"""Models on a model hub: whether this machine has them, or can reach the hub."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies


def local_folder(name: str, environment: Mapping[str, str]) -> Path | None:
    """The folder of a model's files; None if the model is not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    snapshots = hub / f"models--{name.replace('/', '--')}" / "snapshots"
    return next((folder for folder in snapshots.glob("*") if (folder / "config.json").exists()), None)


def raise_if_out_of_reach(name: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises OSError for a model that is not on this machine if the hub's host name does not resolve.

    vLLM and the hub's client would retry for two minutes. A proxy resolves names itself, so behind one they decide.
    """
    if local_folder(name, environment) is not None or environment.get("VLLM_USE_MODELSCOPE") or getproxies():
        return
    host = urlsplit(environment.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, 443)
    except socket.gaierror as error:
        raise OSError(
            f"the model {name} is not on this machine, and the model hub {host} cannot be reached ({error.strerror}): "
            f"give the path of a checkpoint, or download it first where there is a network (hf download {name})"
        ) from error
