"""The bundled meta RM: a head of a few kilobytes, shipped with this package, on the first layers of the bundled model.

It is put together once in the user's cache as a standard checkpoint, and from then on loaded like any other.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

from grm_server.engine import bundled
from grm_server.engine.artifacts import prepared, run_aside
from grm_server.meta_rm import checkpoint
from grm_server.meta_rm.card import FILE, MetaCard, load_card

logger = logging.getLogger(__name__)

NAME = f"{bundled.NAME}-MetaRM"
HEAD = Path(__file__).parent / "bundled_head"
"""What `grm train-meta-rm --head-only` writes into `head/`."""


def card() -> MetaCard:
    """Raises FileNotFoundError when this installation has none."""
    found = load_card(HEAD)
    if found is None:
        raise FileNotFoundError(f"this installation has no bundled meta RM: {HEAD / FILE} is missing")
    return found


def bundled_meta_rm(cache_dir: Path) -> Path:
    """The folder of the ready meta RM, put together first if it is not there, not whole, or of another head.

    Prepares the bundled model too. Raises as `bundled_model` does, and FileNotFoundError without a head.
    """
    card()
    base = bundled.bundled_model(cache_dir)
    parts = (HEAD / checkpoint.HEAD_FILE, HEAD / FILE)
    # The head, what is known of it, and the weights that it was trained on.
    source = hashlib.sha256(b"".join([*(part.read_bytes() for part in parts), bundled.SOURCE.encode()])).hexdigest()

    def assemble(target: Path) -> None:
        logger.info("putting the bundled meta RM together in %s (once, a few seconds)", target.parent)
        # In a process of its own, as the bundled model is.
        command = [sys.executable, "-m", checkpoint.__name__, str(base), str(HEAD), str(target)]
        run_aside(command, target)

    return prepared(cache_dir, NAME, source, assemble)
