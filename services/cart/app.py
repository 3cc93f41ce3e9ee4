"""Composition root of the cart service: what its two processes are made of."""

from typing import TYPE_CHECKING

from libs.common.processes.parts import ServiceParts
from services.cart import consumers, handlers, repository
from services.cart.settings import Settings

if TYPE_CHECKING:
    from libs.common.http.routes import Routes


def routes() -> "Routes":
    """HTTP in; a worker never loads it."""
    from services.cart.api import ROUTES

    return ROUTES


PARTS = ServiceParts(
    name="cart",
    settings=Settings,
    rows=repository.ROWS,
    handlers=handlers.HANDLERS,
    topics=consumers.TOPICS,
    routes=routes,
    projections=repository.PROJECTIONS,
)
