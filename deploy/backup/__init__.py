"""Backups of a PostgreSQL cluster: base backups and all of its log, sealed, and the way back to any second of them."""
