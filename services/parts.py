"""What each service is made of, by its name: for the command line, the documents and the tests."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libs.common.processes.parts import ServiceParts


def parts_of(service: str) -> "ServiceParts":
    """What this service is made of."""
    parts: ServiceParts = import_module(f"services.{service}.app").PARTS
    return parts
