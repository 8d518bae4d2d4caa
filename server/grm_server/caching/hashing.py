"""Content hashes that are equal across processes."""

from __future__ import annotations

import hashlib


def fingerprint(*texts: str) -> bytes:
    """(16,), BLAKE2b of the texts in this order. Lengths are hashed too, so `("ab", "c")` and `("a", "bc")` differ."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.digest()
