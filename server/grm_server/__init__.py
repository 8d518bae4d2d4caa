"""GRM Server: rewards from k readings of a generative reward model, voted, over HTTP."""
