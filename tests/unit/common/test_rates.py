"""Who is counted with whom, and what is forgotten."""

from uuid import UUID

import pytest

from libs.common.auth import SHOPPER, Principal
from libs.common.http import rates as subject_under_test
from libs.common.http.rates import FREE_GUESSES, LONGEST_PAUSE_SECONDS, RateLimitedError, Rates, address_of
from libs.common.settings import Settings, SettingsError
from tests.shared.roots import PUBLIC_ROOT

TENANT, OTHER = UUID(int=1), UUID(int=2)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _rates(clock: Clock, **given: str) -> Rates:
    needed = {"database_url": "-", "kafka_bootstrap_servers": "-", "issuer": "-", "jwks_url": "-", "http_port": 1}
    settings = {**needed, "issuer_root_public_key": PUBLIC_ROOT}
    return Rates(Settings.model_validate({**settings, **given}), clock)


def _shopper(number: int, tenant_id: UUID = TENANT) -> Principal:
    return Principal(UUID(int=number), "", tenant_id, frozenset(), (SHOPPER,))


def _let_in(rates: Rates, times: int, who: Principal | None, address: str = "a", what: str = "carts") -> int:
    """How many of so many are let in, one after the other."""
    count, told = 0, list[tuple[int, str, bool]]()
    for _ in range(times):
        try:
            rates.count(what, who, address)
        except RateLimitedError as error:
            told.append((error.status, error.code, error.members["retry_after"] >= 1))
        else:
            count += 1
    assert {*told} <= {(429, "rate-limited", True)}
    return count


def test_one_shopper_who_begins_too_much_holds_up_nobody_else_and_comes_again_at_the_rate(clock: Clock) -> None:
    rates = _rates(clock, rate_per_subject="2/5")
    assert _let_in(rates, 1_001, _shopper(1)) == 5
    assert _let_in(rates, 5, _shopper(2)) == 5
    assert _let_in(rates, 5, _shopper(1, OTHER)) == 5
    assert _let_in(rates, 5, _shopper(1), what="checkouts") == 5
    clock.now += 1
    assert _let_in(rates, 100, _shopper(1)) == 2


def test_a_tenants_many_shoppers_are_counted_together_and_no_other_tenants(clock: Clock) -> None:
    rates = _rates(clock, rate_per_tenant="1/7")
    assert sum(_let_in(rates, 1, _shopper(number)) for number in range(50)) == 7
    assert _let_in(rates, 1, _shopper(1, OTHER)) == 1


def test_strangers_are_counted_by_address_and_a_subscriber_of_ipv6_has_one(clock: Clock) -> None:
    rates = _rates(clock, rate_per_address="1/3")
    assert _let_in(rates, 10, None, "198.51.100.1") == 3
    assert _let_in(rates, 10, None, "198.51.100.2") == 3
    one, same, other = (address_of({"client": (each, 1)}) for each in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"))
    assert one == same != other
    assert address_of({"client": None}) == ""


def test_who_makes_names_up_is_told_of_the_known_ones_alone_until_time_has_passed(clock: Clock) -> None:
    rates = _rates(clock, rate_of_misses="1/3")
    rates.found(TENANT)
    for _ in range(3):
        rates.demand_not_made_up(OTHER, "thief")
        rates.missed("thief")
    with pytest.raises(RateLimitedError):
        rates.demand_not_made_up(OTHER, "thief")
    rates.demand_not_made_up(TENANT, "thief")
    rates.demand_not_made_up(OTHER, "neighbour")
    clock.now += 1
    rates.demand_not_made_up(OTHER, "thief")


def test_each_wrong_secret_after_the_first_few_costs_a_longer_pause_and_the_right_one_ends_it(clock: Clock) -> None:
    rates = _rates(clock)
    pauses = []
    for _ in range(FREE_GUESSES + 10):
        rates.demand_may_guess("client", "thief")
        rates.guessed("client", "thief", right=False)
        before = clock.now
        while True:
            try:
                rates.demand_may_guess("client", "thief")
            except RateLimitedError as error:
                clock.now += error.members["retry_after"]
            else:
                break
        pauses.append(clock.now - before)
        rates.demand_may_guess("client", "owner")
    assert pauses[: FREE_GUESSES - 1] == [0] * (FREE_GUESSES - 1)
    assert pauses[FREE_GUESSES - 1 : FREE_GUESSES + 5] == [1, 2, 4, 8, 16, 32]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    rates.guessed("client", "thief", right=True)
    rates.guessed("client", "thief", right=False)
    rates.demand_may_guess("client", "thief")


def test_what_is_remembered_has_an_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_under_test, "MAX_KEPT", 10)
    rates = _rates(clock)
    for number in range(100):
        rates.found(number)
        rates.guessed(str(number), "thief", right=False)
    assert len(rates._found) == len(rates._guesses._wrong) == 10


def test_without_settings_nobody_is_limited() -> None:
    assert _let_in(Rates(), 10_000, _shopper(1)) == _let_in(Rates(), 10_000, None) == 10_000


@pytest.mark.parametrize("rate", ["", "0/1", "1/0", "10", "1/1/1", "-1/5", "many"])
def test_a_rate_that_is_none_is_refused(rate: str, clock: Clock) -> None:
    with pytest.raises((SettingsError, ValueError)):
        _rates(clock, rate_per_subject=rate)
