"""Text generation: the engine protocols, vLLM, and a fake. In serving, only engine and meta_rm import vLLM or torch."""
