"""Where a bank leads a buyer back to: nobody makes it lead anywhere but to the shop."""

from uuid import UUID

import pytest

from libs.common.errors import RejectedError
from services.checkout.domain.returning import back_to, origins_of

CHECKOUT = UUID(int=7)
OURS = origins_of(["https://cartwright.test/identity", "http://127.0.0.1:8080/"])
SETTINGS = {"allowed_origins": ["https://shop.example.com", "https://till.example.com:8443", "http://localhost"]}


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ("https://shop.example.com", "https://shop.example.com"),
        ("https://shop.example.com/paid/{checkout_id}?from=bank", f"https://shop.example.com/paid/{CHECKOUT}?from=bank"),
        ("https://till.example.com:8443/#/c/{checkout_id}", f"https://till.example.com:8443/#/c/{CHECKOUT}"),
        ("http://localhost?x=https://evil.test/", "http://localhost?x=https://evil.test/"),
        ("https://cartwright.test/?shop=market#/c/{checkout_id}", f"https://cartwright.test/?shop=market#/c/{CHECKOUT}"),
        ("http://127.0.0.1:8080/?shop=market", "http://127.0.0.1:8080/?shop=market"),
    ],
)
def test_a_page_of_the_shops_is_led_back_to_with_the_checkout_that_it_is_about(asked: str, leads_to: str) -> None:
    assert back_to(asked, CHECKOUT, SETTINGS, OURS) == leads_to


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "https://evil.test/",
            "//evil.test/",
            "/paid",
            "",
            "javascript:alert(1)//https://shop.example.com/",
            "data:text/html,x",
        ),
        *("http://shop.example.com/", "https://shop.example.com:444/", "https://till.example.com/", "http://localhost:8080/"),
        *(
            "https://shop.example.com.evil.test/",
            "https://shop.example.com@evil.test/",
            "https://shop.example.com:443@evil.test/",
        ),
        *(
            "https://shop.example.com\\@evil.test/",
            "https://shop.example.com/\\evil.test",
            "https://evil.test#https://shop.example.com",
        ),
        *("https://evil.test?https://shop.example.com/", "https://u:p@shop.example.com/", "HTTPS://SHOP.EXAMPLE.COM/"),
        *(
            " https://shop.example.com/",
            "https://shop.example.com/ x",
            "https://shop.example.com/\n",
            "https://shop.example.com/\r\nX: y",
        ),
        *(
            "https://shop.example.com./",
            "https://shop.example.com\t/",
            "https://xn--shop.example.com/",
            "https://shop.example.com/ä",
        ),
    ],
)
def test_anybody_elses_page_is_refused_however_it_is_written(asked: str) -> None:
    with pytest.raises(RejectedError, match="allowed_origins"):
        back_to(asked, CHECKOUT, SETTINGS, OURS)


def test_without_one_nobody_is_led_anywhere_and_a_tenant_that_allows_none_has_the_platforms_alone() -> None:
    assert back_to(None, CHECKOUT, SETTINGS, OURS) is None
    assert back_to("http://127.0.0.1:8080/", CHECKOUT, {}, OURS) == "http://127.0.0.1:8080/"
    with pytest.raises(RejectedError):
        back_to("https://shop.example.com/", CHECKOUT, {}, OURS)
