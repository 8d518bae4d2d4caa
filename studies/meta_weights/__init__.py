"""Weighting samples by a meta RM, on simulated judges."""
