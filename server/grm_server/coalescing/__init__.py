"""Request coalescing: identical requests share one judgement."""
