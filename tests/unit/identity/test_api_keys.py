"""An API key is what it was made as: one byte, one tenant, one moment off, and it proves nothing."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import RejectedError
from services.identity.domain import access
from services.identity.domain.api_key import (
    LIFETIME,
    LONGEST,
    SECRET_BYTES,
    ApiKey,
    Presented,
    as_client,
    authenticates,
    client_id_of,
    demand_own,
    digest_of,
    expiry,
    id_of,
    read,
    remove,
    text_of,
)
from tests.unit.memory import NOW, TENANT

KEY_ID, SECOND = UUID("019f0000-0000-7000-8000-000000000001"), timedelta(seconds=1)
TEXT = text_of(TENANT, KEY_ID, b"s" * SECRET_BYTES)
KEY = ApiKey(
    tenant_id=TENANT,
    id=KEY_ID,
    name="A warehouse",
    scopes=("carts:read", "orders:read"),
    digest=digest_of(TEXT),
    created_at=NOW,
    expires_at=NOW + 60 * SECOND,
)


def _presented(text: str = TEXT) -> Presented:
    found = read(text)
    assert found is not None
    return found


@given(st.uuids(), st.uuids(), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_a_key_says_whose_row_to_look_for_whatever_its_secret_is(tenant_id: UUID, key_id: UUID, secret: bytes) -> None:
    text = text_of(tenant_id, key_id, secret)
    assert read(text) == Presented(tenant_id, key_id, digest_of(text))
    assert text.startswith(f"{client_id_of(key_id)}_")
    assert id_of(client_id_of(key_id)) == key_id


@given(st.integers(0, len(TEXT) - 1), st.sampled_from("0aA-_ \n"))
def test_a_key_that_was_touched_anywhere_is_another_or_none(position: int, character: str) -> None:
    touched = TEXT[:position] + character + TEXT[position + 1 :]
    found = read(touched)
    assert found is None or authenticates(KEY, found, NOW) == (touched == TEXT)


def test_what_cannot_be_a_key_is_none_and_no_client_of_a_key_either() -> None:
    for text in ("", "cwk_", TEXT[:-1], TEXT + "A", TEXT + "\n", TEXT.upper(), f"cl_{TENANT.hex}_{KEY_ID.hex}"):
        assert read(text) is None
    for client_id in ("platform", "cwk_x", str(KEY_ID), "shopper"):
        assert id_of(client_id) is None


def test_a_key_counts_until_it_expires_and_not_once_it_is_removed() -> None:
    assert authenticates(KEY, _presented(), NOW + 59 * SECOND)
    assert not authenticates(KEY, _presented(), NOW + 60 * SECOND)
    assert not authenticates(remove(KEY, NOW), _presented(), NOW)
    assert (remove(KEY, NOW).is_gone, KEY.is_gone) == (True, False)
    assert not authenticates(None, _presented(), NOW)
    assert not authenticates(KEY, _presented(text_of(TENANT, KEY_ID, b"t" * SECRET_BYTES)), NOW)


def test_a_key_ends_when_it_is_said_or_after_a_year_and_never_before_it_began() -> None:
    assert (expiry(NOW, None), expiry(NOW, NOW + SECOND), expiry(NOW, NOW + LONGEST)) == (
        NOW + LIFETIME,
        NOW + SECOND,
        NOW + LONGEST,
    )
    for asked in (NOW, NOW - SECOND, NOW + LONGEST + SECOND):
        with pytest.raises(RejectedError) as refused:
            expiry(NOW, asked)
        assert (refused.value.code, refused.value.members["errors"][0]["pointer"]) == ("bad-expiry", "/expires_at")


def test_a_key_grants_what_its_own_row_has_at_this_moment_and_no_more() -> None:
    demand_own(["carts:read"], KEY, NOW)
    demand_own([], None, NOW)
    for scopes, granter, beyond in (
        (["stock:read", "carts:read"], KEY, ["stock:read"]),
        (["carts:read"], None, ["carts:read"]),
        (["carts:read"], remove(KEY, NOW), ["carts:read"]),
        (["carts:read"], replace(KEY, expires_at=NOW), ["carts:read"]),
    ):
        with pytest.raises(RejectedError) as refused:
            demand_own(scopes, granter, NOW)
        assert (refused.value.code, refused.value.members) == ("scope-not-grantable", {"scopes": beyond})


def test_who_has_a_key_is_a_client_without_secrets_of_its_own() -> None:
    client = as_client(KEY)
    assert (client.id, client.subject_id, client.secrets) == (f"cwk_{KEY_ID}", KEY_ID, ())
    granted = access.of_client(client, "client", frozenset({"carts:read", "stock:read"}))
    assert (granted.scope, granted.tenant_id) == ("carts:read", TENANT)
