"""The HTTP edge: guarded routes, problem+json, and the servers of both process kinds. Workers never import FastAPI."""
