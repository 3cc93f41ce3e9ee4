"""What identity decides: tenants, clients, sessions, signing keys, and what an access token grants. Pure."""
