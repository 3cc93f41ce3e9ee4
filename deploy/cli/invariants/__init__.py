"""Invariants: facts that anybody may read, the rules that they must keep, and the verb that looks."""
