"""Training of judges and meta RMs from labelled trajectories. Nothing that serves imports this package."""
