"""Models on a model hub: whether this machine has them, or can reach the hub."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)

ANSWER_S = 5.0
"""Longest wait for the hub's answer whether it has a model."""


def local_folder(name: str, environment: Mapping[str, str]) -> Path | None:
    """The folder of a model's files; None if the model is not on this machine."""
    if Path(name).is_dir():
        return Path(name)
    home = environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    hub = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    snapshots = hub / f"models--{name.replace('/', '--')}" / "snapshots"
    return next((folder for folder in snapshots.glob("*") if (folder / "config.json").exists()), None)


def raise_if_out_of_reach(name: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises OSError for a model that is not on this machine if the hub's host name does not resolve, or the hub
    answers that it has no such model.

    vLLM and the hub's client would retry for two minutes, or print a page. Other failures are left to them. A proxy
    resolves names itself, so behind one the hub's client decides.
    """
    if Path(name).exists() or local_folder(name, environment) is not None or environment.get("VLLM_USE_MODELSCOPE"):
        return
    if name.startswith(("/", ".", "~")):
        raise OSError(f"the model {name} does not exist: give the path of a checkpoint, or a name on a model hub")
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    host = urlsplit(endpoint).hostname
    if not getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except socket.gaierror as error:
            raise OSError(
                f"the model {name} is not on this machine, and the model hub {host} cannot be reached "
                f"({error.strerror}): give the path of a checkpoint, or download it first where there is a network "
                f"(hf download {name})"
            ) from error
    if _is_missing(name, endpoint):
        raise OSError(
            f"the model hub {host} has no model {name}, or it is private: check the name, set HF_TOKEN for a private "
            "model, or give the path of a checkpoint"
        )


def _is_missing(name: str, endpoint: str) -> bool:
    """Whether the hub answers that it has no such model. False if it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi(endpoint=endpoint).model_info(name, timeout=ANSWER_S)
    except RepositoryNotFoundError:
        return True
    except Exception as error:
        # The client raises errors of several libraries, which differ between its versions.
        logger.debug("the model hub did not answer: %s", type(error).__name__)
    return False
