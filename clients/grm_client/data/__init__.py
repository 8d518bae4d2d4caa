"""Processing of files: score them, collect labelled trajectories, write fine-tuning data."""
