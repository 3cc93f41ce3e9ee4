"""Card numbers, keys and secrets are told from everything else that has digits."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.sensitive import LEFT_OUT, all_without_sensitive, is_sensitive, leave_out_sensitive, without_sensitive


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("an IMEI", "356938035643809"),
        ("an IMEI", "490154203237518"),
        ("a GTIN-13 that passes Luhn", "4006381333931"),
        ("a GTIN-14", "30012345678906"),
        ("a phone number", "+4915112345678"),
        ("a phone number of fifteen digits", "+374242424242428"),
        ("a time in milliseconds", "1784000000000"),
        ("a time in microseconds", "1784000000000006"),
        ("a day and a time", "20260101120003"),
        ("an order number of twelve digits", "424242424242"),
        ("an order number in groups", "2026-0000-0000-0008"),
        ("an IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("a UUID", "42424242-4242-4242-4242-424242424242"),
        ("a hash", "4242424242424242a4242424242424242"),
        ("twenty digits", "42424242424242424242"),
    ],
)
def test_other_peoples_numbers_are_told_as_they_are(name: str, text: str) -> None:
    assert without_sensitive(f"{name}: {text}.") == f"{name}: {text}."


@pytest.mark.parametrize(
    ("network", "number"),
    [
        *(("Visa", "4000056655665556"), ("Visa of nineteen", "4242424242424242428"), ("Mastercard", "2223003122003222")),
        *(("Mastercard", "5105105105105100"), ("American Express", "371449635398431"), ("Discover", "6011000990139424")),
        *(("JCB", "3566002020360505"), ("Diners Club", "3056930009020004"), ("Diners Club", "36227206271667")),
        *(("UnionPay", "6200000000000005"), ("UnionPay of nineteen", "6205500000000000004"), ("Maestro", "6759649826438453")),
    ],
)
def test_every_networks_numbers_are_known(network: str, number: str) -> None:
    assert is_sensitive(f"{network} {number}")
    spaced = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    assert without_sensitive(spaced) == LEFT_OUT


def test_a_number_in_a_field_of_ids_is_somebodys_and_a_secret_is_one_anywhere() -> None:
    told = {"sku": "4242424242424242", "order_id": "4242424242424242", "number": "4242424242424242", "detail": "4242424242424242"}
    assert all_without_sensitive({"errors": [told]}) == {"errors": [{**told, "detail": LEFT_OUT}]}
    assert leave_out_sensitive(None, "info", {"sku": "4242424242424242", "event": "4242424242424242", "key_id": "whsec_a"}) == {
        "sku": "4242424242424242",
        "event": LEFT_OUT,
        "key_id": LEFT_OUT,
    }


@pytest.mark.parametrize("text", ["4242424242424241", "1784000000000000", "sku_test_1", "pm_card_visa", "a secret", "2026-11-22"])
def test_what_only_looks_like_one_is_left_as_it_is(text: str) -> None:
    assert without_sensitive(text) == text


@given(st.uuids())
def test_no_uuid_is_taken_for_one(key: UUID) -> None:
    assert not is_sensitive(f"/v1/payments/{key}/refunds")
