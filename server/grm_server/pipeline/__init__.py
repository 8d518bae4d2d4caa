"""The flow of one request from its texts to its rewards: plan, draw a wave, assess it, stop or go on, vote."""
