"""Our books beside the provider's: each side in the same words, how they are compared, and the runs and breaks of that."""
