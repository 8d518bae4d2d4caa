"""Check that the judge's tokenizer keeps text, as the server does at its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from grm_server.cli.doctor.finding import Finding, fail, ok
from grm_server.engine import bundled
from grm_server.engine.artifacts import is_complete
from grm_server.engine.hub import local_folder
from grm_server.settings import Settings


def check_tokenizer(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """No finding without the model's files or the server's packages, and for a tokenizer that only vLLM can choose."""
    engine = settings.engine
    folder = _folder(engine.model, settings.cache_dir, environment)
    if engine.kind != "vllm" or folder is None or engine.vllm_args.keys() & {"tokenizer_mode", "trust_remote_code"}:
        return
    try:
        from grm_server.engine.vllm.judge import load_judge_encoder

        load_judge_encoder(engine.vllm_args.get("tokenizer") or folder, engine)
    except ImportError:
        return
    except (ValueError, OSError) as error:
        yield fail("tokenizer", " ".join(str(error).split()), "the server does not start with this tokenizer")
    else:
        yield ok("tokenizer", "sample texts survive a round trip, and the chat template shows a user's turn")


def _folder(model: str, cache_dir: Path, environment: Mapping[str, str]) -> Path | None:
    """The folder of the model's files; None if they are not on this machine yet."""
    if model != "bundled":
        return local_folder(model, environment)
    folder = cache_dir.expanduser() / bundled.NAME
    return folder if is_complete(folder, bundled.SOURCE) else None
