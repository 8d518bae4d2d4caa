"""Weighting samples by a meta RM, on critiques of real judges."""
