"""The one address that browsers come in at: the gateway of a test's own stack."""

from dataclasses import dataclass

import pytest

from tests.shared.market import Market


@dataclass(frozen=True)
class Front:
    """Where the pages are."""

    url: str


def front_of(market: Market) -> Front:
    """Where a market's gateway is. Skips where this platform has none."""
    url = market.stack.description().gateway_url
    if url is None:
        pytest.skip("not proven: that the pages work in a browser (this platform has no Envoy, which serves them)")
    return Front(url)
