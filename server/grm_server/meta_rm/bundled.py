"""The bundled meta RM: a head of a few kilobytes, included in this package, on the first layers of the bundled model.

We assemble it once in the user's cache as a standard checkpoint, and then load it like any other model.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

from grm_server.engine import bundled
from grm_server.engine.artifacts import cached_artifact, run_subprocess
from grm_server.meta_rm.card import FILE, MetaCard, load_card

logger = logging.getLogger(__name__)

NAME = f"{bundled.NAME}-MetaRM"
HEAD = Path(__file__).parent / "bundled_head"
"""The `head/` folder that `grm train-meta-rm --head-only` wrote."""


def card() -> MetaCard:
    """Raises FileNotFoundError if this installation has no bundled meta RM."""
    result = load_card(HEAD)
    if result is None:
        raise FileNotFoundError(f"this installation has no bundled meta RM: {HEAD / FILE} is missing")
    return result


def bundled_meta_rm(cache_dir: Path) -> Path:
    """The folder of the assembled meta RM. Assembles it first if it is missing, damaged, or made from another head.

    Also prepares the bundled model. Raises what `bundled_model` raises, and FileNotFoundError without a head.
    """
    # Imported here: it needs numpy, which `grm doctor` must not.
    from grm_server.meta_rm import checkpoint

    card()
    base = bundled.bundled_model(cache_dir)
    parts = (HEAD / checkpoint.HEAD_FILE, HEAD / FILE)
    # The source is the head, its card, and the weights that it was trained on.
    source = hashlib.sha256(b"".join([*(part.read_bytes() for part in parts), bundled.SOURCE.encode()])).hexdigest()

    def assemble(target: Path) -> None:
        logger.info("assembling the bundled meta RM in %s (once, a few seconds)", target.parent)
        # In a subprocess, as for the bundled model.
        command = [sys.executable, "-m", checkpoint.__name__, str(base), str(HEAD), str(target)]
        run_subprocess(command, target)

    return cached_artifact(cache_dir, NAME, source, assemble)
