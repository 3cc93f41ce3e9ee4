"""A tenant's account at the provider: given once and again, and its key wrapped anew when the master key is another."""

import pytest

from libs.common.errors import NotFoundError
from libs.common.sealing import Envelope, MasterKey, MasterKeys, SealError
from services.payments.domain.provider.account import STRIPE, Limits, ProviderAccount, limits_of, place_of
from services.payments.handlers import HANDLERS
from services.payments.handlers.accounts import GiveAccount, RewrapAccount
from tests.shared.events import tenant_updated
from tests.unit.memory import NOW, TENANT, Memory

OLD, NEW, OTHER = (MasterKey(bytes([number]) * 32) for number in range(3))
PLACE = place_of(TENANT, STRIPE)


def _given(envelope: Envelope, sealed_api_key: bytes | None = None, *, livemode: bool = False) -> GiveAccount:
    return GiveAccount(
        account_id="acct_1",
        sealed_api_key=sealed_api_key,
        api_key_hint=None,
        webhook_secrets=(),
        envelope=envelope,
        livemode=livemode,
    )


def test_the_key_of_an_account_is_wrapped_anew_once_and_opens_what_it_sealed() -> None:
    memory, anew = Memory(HANDLERS), RewrapAccount(master_keys=MasterKeys(NEW, OLD))
    assert memory.execute(anew) is False, "there is no account"
    memory.execute(tenant_updated(TENANT))
    key, envelope = MasterKeys(OLD).new_data_key(PLACE)
    sealed = key.seal("sk_1", "api_key")
    made: ProviderAccount = memory.execute(_given(envelope, sealed))
    assert (made.place, made.created_at, made.rotated_at, made.livemode, made.version) == (PLACE, NOW, NOW, False, 1)
    with pytest.raises(SealError):
        memory.execute(RewrapAccount(master_keys=MasterKeys(OTHER)))
    assert [memory.execute(anew) for _ in range(2)] == [True, False]
    wrapped = memory.get(ProviderAccount, STRIPE)
    assert (wrapped.master_key_id, wrapped.version) == (NEW.id, 2)
    opened = MasterKeys(NEW).open(Envelope(wrapped.master_key_id, wrapped.wrapped_key), PLACE)
    assert opened.open(sealed, "api_key") == "sk_1"
    again: ProviderAccount = memory.execute(_given(envelope, livemode=True))
    assert (again.livemode, again.version, again.created_at) == (True, 3, NOW)


def test_no_account_is_given_to_a_tenant_that_is_not_known() -> None:
    _, envelope = MasterKeys(NEW).new_data_key(PLACE)
    with pytest.raises(NotFoundError, match="tenant-not-found"):
        Memory(HANDLERS).execute(_given(envelope))


@pytest.mark.parametrize(
    ("chosen", "limits"),
    [
        ({"per_second": 10}, Limits(10, 10)),
        ({"per_second": 10, "endpoint_per_second": 4}, Limits(10, 4)),
        ({"per_second": 100_000}, Limits(100_000, 100_000)),
        ({"per_second": 100_001}, None),
        ({"per_second": 0}, None),
        ({"per_second": True}, None),
        ({"per_second": 10, "endpoint_per_second": "4"}, None),
        ({"per_second": "10", "endpoint_per_second": 4}, None),
        ({}, None),
        (5, None),
    ],
)
def test_a_tenants_limits_are_taken_whole_or_not_at_all(chosen: object, limits: Limits | None) -> None:
    assert limits_of({"provider_limits": chosen}) == limits
    assert limits_of({}) is None
