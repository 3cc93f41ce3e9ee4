"""Card numbers, keys and secrets are told from everything else that has digits."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.sensitive import LEFT_OUT, all_without_sensitive, is_sensitive, without_sensitive


@pytest.mark.parametrize(
    "text",
    [
        *("4242424242424242", "4000 0566 5566 5556", "5555-5555-5555-4444", "378282246310005", "6011111111111117"),
        *("sk_live_abc123", "rk_test_abc123", "whsec_abc123", "pi_3abc_secret_def", "seti_1abc_secret_def"),
    ],
)
def test_each_is_left_out_of_whatever_stands_around_it(text: str) -> None:
    assert is_sensitive(text)
    assert without_sensitive(f"card={text}; more") == f"card={LEFT_OUT}; more"
    assert all_without_sensitive({"a": [text, {text: 1}]}) == {"a": [LEFT_OUT, {LEFT_OUT: 1}]}


@pytest.mark.parametrize("text", ["4242424242424241", "1784000000000000", "sku_test_1", "pm_card_visa", "a secret", "2026-11-22"])
def test_what_only_looks_like_one_is_left_as_it_is(text: str) -> None:
    assert without_sensitive(text) == text


@given(st.uuids())
def test_no_uuid_is_taken_for_one(key: UUID) -> None:
    assert not is_sensitive(f"/v1/payments/{key}/refunds")
