"""Where tokens come from. Only this package knows vLLM, torch and tokenizers."""
