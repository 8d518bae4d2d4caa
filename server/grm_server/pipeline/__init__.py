"""The whole flow of a request, from its texts to its rewards: plan, draw a wave, read it, stop or go on, vote."""
