"""Composition root of the cart service: what its two processes are made of."""

from libs.common.processes.parts import ServiceParts
from services.cart import consumers, handlers, repository, tables
from services.cart.settings import Settings

PARTS = ServiceParts(
    name="cart",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    holdings=tables.HOLDINGS,
    projections=repository.PROJECTIONS,
)
