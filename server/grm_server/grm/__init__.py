"""The method, pure: what to draw, what to ask, how to read the answer, how to vote.

Nothing here does I/O, awaits, reads a clock or a global random state. The stages (`plan`, `prompts`, `parse`,
`voting`) import `types` and never one another; `pipeline` is where they meet.
Source: Liu et al. 2025, "Inference-Time Scaling for Generalist Reward Modeling", arXiv 2504.02495.
"""
