"""Serving a meta RM: in process or remote, its card and its checkpoint."""
