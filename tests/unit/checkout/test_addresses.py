"""What an address needs, country by country."""

from typing import Any

import pytest
from pydantic import ValidationError

from libs.common.countries import COUNTRIES, needed_in
from services.checkout.api.models import AddressModel

BARE = {"name": "A. Buyer", "line1": "1 Street"}
WHOLE = {"city": "City", "region": "Region", "postal_code": "1"}


def missing(address: dict[str, Any]) -> set[Any]:
    try:
        AddressModel.model_validate(address)
    except ValidationError as error:
        return {each["loc"][0] for each in error.errors()}
    return set()


@pytest.mark.parametrize(
    ("country", "needs"),
    [
        ("GB", {"city", "postal_code"}),
        ("DE", {"city", "postal_code"}),
        ("FR", {"city", "postal_code"}),
        ("US", {"city", "region", "postal_code"}),
        ("CA", {"city", "region", "postal_code"}),
        ("AU", {"city", "region", "postal_code"}),
        ("JP", {"region", "postal_code"}),
        ("BR", {"city", "region", "postal_code"}),
        ("IE", {"city"}),
        ("HK", {"region"}),
        ("AE", {"region"}),
        ("SG", {"postal_code"}),
        ("KE", {"city"}),
        ("PA", {"city"}),
        ("AG", set()),
    ],
)
def test_an_address_needs_what_its_country_cannot_do_without_and_no_more(country: str, needs: set[str]) -> None:
    assert missing({**BARE, "country": country}) == needs
    assert missing({**BARE, "country": country, **{name: WHOLE[name] for name in needs}}) == set()
    for name in needs:
        for empty in (None, "", " ", "\t"):
            assert missing({**BARE, "country": country, **WHOLE, name: empty}) == {name}


@pytest.mark.parametrize("country", sorted(COUNTRIES))
def test_every_country_takes_a_whole_address_and_says_what_it_needs(country: str) -> None:
    assert missing({**BARE, "country": country, **WHOLE}) == set()
    assert missing({**BARE, "country": country}) == needed_in(country) <= WHOLE.keys()


def test_of_a_country_that_is_none_only_that_is_told() -> None:
    assert missing({**BARE, "country": "ZZ"}) == {"country"}
