"""What each service is made of, by its name: for the command line, the local stack, the documents and the tests."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libs.common.processes.parts import ServiceParts
    from libs.common.settings import Settings


def parts_of(service: str) -> "ServiceParts":
    """What this service is made of."""
    parts: ServiceParts = import_module(f"services.{service}.app").PARTS
    return parts


def settings_of(service: str) -> "type[Settings]":
    """What it reads from its environment: the same as its parts say, without loading the rest of them."""
    settings: type[Settings] = import_module(f"services.{service}.settings").Settings
    return settings
