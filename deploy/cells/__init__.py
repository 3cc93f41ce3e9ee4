"""Tenants that move from one set of databases to another: what is copied, which doors close and open, in which order."""
