"""The one table of this service's handlers; every module beside this one registers its own in it."""

from libs.common.decision import Handlers

HANDLERS = Handlers()

COMING_IN = "somebody comes in or goes, and changes nothing of the shop"
"""Why an audit trail does not tell of it: the security log does."""
