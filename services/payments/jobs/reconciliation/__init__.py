"""Every tenant's books beside the provider's: when a run begins, what it compares, and what it does about differences."""
