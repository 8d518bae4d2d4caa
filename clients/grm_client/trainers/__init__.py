"""Reward functions for TRL, verl, ms-swift, slime and miles."""
