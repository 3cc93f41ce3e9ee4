"""payments: authorizes and captures through a provider, and never guesses an outcome."""
