"""The one table of this service's handlers; every module beside this one registers its own in it."""

from libs.common.messaging.decision import Handlers

HANDLERS = Handlers()
