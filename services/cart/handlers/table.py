"""The one table of this service's handlers; every module beside this one registers its own in it."""

from libs.common.decision import Handlers

HANDLERS = Handlers()
