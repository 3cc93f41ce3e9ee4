"""What lies between us and the provider: operations asked of it, outcomes in our words, its accounts and its webhooks.

It rests on nothing else of the domain; payments and refunds rest on it.
"""
