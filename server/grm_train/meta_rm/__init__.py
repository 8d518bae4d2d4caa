"""Training a meta RM from the trajectories of `grm collect`."""
