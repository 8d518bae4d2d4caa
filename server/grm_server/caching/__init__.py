"""Bounded in-memory building blocks: a TTL cache, single-flight and content hashes."""
