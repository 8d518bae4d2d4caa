"""The method, in pure functions: plan the samples, write the prompts, parse the samples, vote, decide when to stop.

Nothing here does I/O (but `presets`, which reads this package's own files), awaits, reads a clock or uses global random
state. The stages (`plan`, `prompts`, `parse`, `voting`) import `types` and never one another; `pipeline` combines them.
Source: Liu et al. 2025, "Inference-Time Scaling for Generalist Reward Modeling", arXiv 2504.02495.
"""
