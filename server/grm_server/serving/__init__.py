"""What outlives a request: priors learnt from traffic, audits in the background."""
