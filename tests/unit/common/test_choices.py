"""What tenants choose of limits and pages: the latest word counts, and what cannot be read is as if it had not been chosen."""

from typing import Any
from uuid import UUID

import pytest

from libs.common.choices import NO_LIMITS, Choices, Limits

TENANT, OTHER = UUID(int=1), UUID(int=2)
PAGE = "https://shop.example.com"


def chosen(settings: dict[str, Any], *, version: int = 1, is_open: bool = True) -> Choices:
    choices = Choices()
    choices.learn(TENANT, version, settings, is_open=is_open)
    return choices


@pytest.mark.parametrize("strange", [None, "5", 5, [], {"subject_per_second": "5"}, {"subject_per_second": 0}, {"unknown": 5}])
def test_limits_that_cannot_be_read_limit_nobody(strange: Any) -> None:
    assert chosen({"limits": strange}).limits(TENANT) == NO_LIMITS


@pytest.mark.parametrize(
    "strange", [None, PAGE, [5, None], ["*"], ["null"], ["http://shop.example.com"], [f"{PAGE}/path"], ["https://*"]]
)
def test_what_is_no_host_over_tls_lets_no_page_in(strange: Any) -> None:
    choices = chosen({"allowed_origins": strange})
    for origin in ("*", "null", PAGE, "http://shop.example.com"):
        assert not choices.is_anybodys(origin)
        assert not choices.lets_in(TENANT, origin)


def test_the_latest_word_of_each_tenant_counts_and_an_origin_is_known_while_anybody_names_it() -> None:
    choices = chosen({"limits": {"subject_per_second": 5}, "allowed_origins": [PAGE]}, version=5)
    choices.learn(OTHER, 1, {"allowed_origins": [PAGE]}, is_open=True)
    choices.learn(TENANT, 4, {}, is_open=True)
    assert choices.limits(TENANT) == Limits(subject_per_second=5)
    choices.learn(TENANT, 6, {}, is_open=True)
    assert choices.limits(TENANT) == NO_LIMITS
    assert (choices.lets_in(TENANT, PAGE), choices.lets_in(OTHER, PAGE), choices.is_anybodys(PAGE)) == (False, True, True)
    choices.learn(OTHER, 2, {"allowed_origins": [PAGE]}, is_open=False)
    assert not choices.is_anybodys(PAGE)
