"""Where a buyer's bank leads them back to: a page of the shop's own, and never anybody else's."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from libs.common.choices import ORIGIN
from libs.common.errors import RejectedError

CHECKOUT_ID: Final = "{checkout_id}"
"""Stands for the checkout's id, which nobody knows before there is one."""
MOST_CHARACTERS: Final = 1_000
PLACE: Final = rf"({ORIGIN.pattern})(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%{{}}-]*)?"
"""An origin as a shop may name one, and what comes behind it: so there is no user's part, and no host but that one."""


def origins_of(places: Iterable[str]) -> frozenset[str]:
    """The origins of pages."""
    return frozenset(f"{at.scheme}://{at.netloc}" for at in map(urlsplit, places))


def back_to(asked: str | None, checkout_id: UUID, settings: dict[str, Any], ours: Collection[str]) -> str | None:
    """Where this checkout's buyer is led back to. `ours`: the origins where every tenant has a shop.

    Raises RejectedError for a page that is neither there nor at an origin that the tenant allows.
    """
    if asked is None:
        return None
    found = re.fullmatch(PLACE, asked)
    if found is None or not (found[1] in ours or found[1] in (settings.get("allowed_origins") or ())):
        raise RejectedError("return-url-refused", "return_url is at no origin that the tenant allows (`allowed_origins`)")
    return asked.replace(CHECKOUT_ID, str(checkout_id))
