"""GRM Server: rewards from k samples of a generative reward model, voted, over HTTP."""
