"""SQL of what lies between us and the provider: operations, accounts and notices."""
