"""The two kinds of process a service runs as, `api` and `worker`, and the parts that both are put together from."""
