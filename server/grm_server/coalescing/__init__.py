"""Identical requests in flight share one judgement."""
