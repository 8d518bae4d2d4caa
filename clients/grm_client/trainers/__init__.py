"""Reward functions for trainers: TRL, verl, ms-swift, slime and miles."""
