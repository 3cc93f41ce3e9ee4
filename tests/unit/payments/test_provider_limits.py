"""What is let out to the provider, and when: the same clock for everybody, and it moves only when told to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.payments.domain.provider.account import LIVE, TEST, UNLIMITED, Limits, limits_of
from services.payments.domain.provider.outcome import Declined, Throttled, Unknown
from services.payments.gateway.limits import (
    BURST_SECONDS,
    FAILURE_SHARE,
    MAX_OPEN_SECONDS,
    MAX_WAIT_SECONDS,
    MIN_CALLS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    WINDOW_SECONDS,
    Buckets,
    CircuitState,
    Guard,
)

NO = Declined("no", None)
SILENCE = Unknown("silence")


class Time:
    """A clock that everything sleeps by."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Provider:
    """Counts what reaches it, and answers what it is told to."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.answer: Any = NO
        self.called_at: list[float] = []

    async def call(self) -> Any:
        self.called_at.append(self.time.now)
        return self.answer


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def provider(time: Time) -> Provider:
    return Provider(time)


def guard_of(time: Time, per_second: float, endpoint: float) -> Guard:
    limits = Limits(per_second=per_second, endpoint_per_second=endpoint)
    return Guard("test", limits, clock=lambda: time.now, sleep=time.sleep)


def state_of(guard: Guard) -> CircuitState:
    return guard.circuit.state


async def _ask(guard: Guard, provider: Provider, times: int, endpoint: str = "create") -> int:
    """Ask so often; answers how many were let out."""
    answers = [await guard.call(endpoint, provider.call) for _ in range(times)]
    return sum(not isinstance(answer, Throttled) for answer in answers)


async def test_calls_go_out_at_the_endpoints_rate_and_none_is_sent_that_would_wait_too_long(time: Time) -> None:
    provider, guard = Provider(time), guard_of(time, 100, 20)
    waiting = [asyncio.create_task(guard.call("create", _held(provider, time))) for _ in range(100)]
    answers = await asyncio.gather(*waiting)
    out = sum(not isinstance(answer, Throttled) for answer in answers)
    assert out == len(provider.called_at) == 20 * (BURST_SECONDS + MAX_WAIT_SECONDS), "the burst, and whose turn comes in time"
    assert all((answer.retry_after or 0) > MAX_WAIT_SECONDS for answer in answers if isinstance(answer, Throttled))


def _held(provider: Provider, time: Time) -> Callable[[], Awaitable[Any]]:
    """A call after which no time has passed: everybody asks at the same moment."""

    async def call() -> Any:
        time.now = 1_000.0
        return await provider.call()

    return call


@pytest.mark.parametrize(("per_second", "endpoint"), [(100, 25), (25, 25), (7, 3)])
async def test_over_any_ten_seconds_an_account_is_called_no_oftener_than_its_rate_and_burst(
    time: Time, provider: Provider, per_second: float, endpoint: float
) -> None:
    guard = guard_of(time, per_second, endpoint)
    end = time.now + 10
    while time.now < end:
        for name in ("create", "confirm", "capture", "cancel", "refund"):
            await guard.call(name, provider.call)
        time.now += 0.01
    allowed = min(per_second, 5 * endpoint) * 10
    assert 0.95 * allowed <= len(provider.called_at) <= allowed + max(1, per_second * BURST_SECONDS) + 5


async def test_one_endpoints_calls_leave_the_others_their_own(time: Time, provider: Provider) -> None:
    guard = guard_of(time, 1_000, 10)
    assert await _ask(guard, provider, 5, "create") > 0
    while await _ask(guard, provider, 1, "create"):
        time.now = 1_000.0
    assert await _ask(guard, provider, 1, "confirm") == 1


async def test_a_tenants_share_of_a_common_account_stops_the_tenant_and_nobody_else(time: Time, provider: Provider) -> None:
    guard = guard_of(time, 1_000, 1_000)
    share = Buckets(Limits(per_second=4, endpoint_per_second=4), time.now)
    out = 0
    for _ in range(20):
        out += not isinstance(await guard.call("create", provider.call, share), Throttled)
        time.now = 1_000.0
    assert out == 4 * MAX_WAIT_SECONDS + 1
    assert await _ask(guard, provider, 20) == 20


async def test_a_circuit_opens_at_the_share_of_failures_and_then_nothing_is_sent(time: Time, provider: Provider) -> None:
    guard = guard_of(time, 1_000, 1_000)
    provider.answer = SILENCE
    assert await _ask(guard, provider, MIN_CALLS - 1) == MIN_CALLS - 1
    assert state_of(guard) is CircuitState.CLOSED, "fewer calls say nothing"
    await _ask(guard, provider, 1)
    assert state_of(guard) is CircuitState.OPEN
    refused = await guard.call("create", provider.call)
    assert refused == Throttled(OPEN_SECONDS)
    assert len(provider.called_at) == MIN_CALLS


async def test_a_refusal_by_the_provider_is_an_answer_and_thirty_percent_of_silence_open_nothing(
    time: Time, provider: Provider
) -> None:
    guard = guard_of(time, 1_000, 1_000)
    for number in range(1_000):
        provider.answer = SILENCE if number % 10 < 3 else NO
        await guard.call("create", provider.call)
        time.now += 0.02
    assert FAILURE_SHARE > 0.3
    assert state_of(guard) is CircuitState.CLOSED


async def test_failures_of_long_ago_are_forgotten(time: Time, provider: Provider) -> None:
    guard = guard_of(time, 1_000, 1_000)
    provider.answer = SILENCE
    await _ask(guard, provider, MIN_CALLS - 1)
    time.now += WINDOW_SECONDS + 1
    await _ask(guard, provider, MIN_CALLS - 1)
    assert state_of(guard) is CircuitState.CLOSED


async def _opened(time: Time, provider: Provider) -> Guard:
    guard = guard_of(time, 1_000, 1_000)
    provider.answer = SILENCE
    await _ask(guard, provider, MIN_CALLS)
    assert state_of(guard) is CircuitState.OPEN
    return guard


async def test_an_open_circuit_tries_one_call_at_a_time_and_closes_with_the_first_answer(time: Time, provider: Provider) -> None:
    guard = await _opened(time, provider)
    time.now += OPEN_SECONDS
    entered, answered = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        entered.set()
        await answered.wait()
        return NO

    probe = asyncio.create_task(guard.call("create", slow))
    await entered.wait()
    assert state_of(guard) is CircuitState.HALF_OPEN
    assert await guard.call("create", provider.call) == Throttled(PROBE_SECONDS)
    answered.set()
    assert await probe == NO
    assert state_of(guard) is CircuitState.CLOSED
    provider.answer = NO
    assert await _ask(guard, provider, 50) == 50


async def test_a_stored_failure_comes_from_a_provider_that_is_there_and_keeps_nobody_out(time: Time, provider: Provider) -> None:
    guard = await _opened(time, provider)
    time.now += OPEN_SECONDS
    provider.answer = Unknown("http-500", stored=True)
    assert await _ask(guard, provider, 2 * MIN_CALLS) == 2 * MIN_CALLS
    assert state_of(guard) is CircuitState.CLOSED


async def test_every_try_in_vain_doubles_the_wait_up_to_a_minute(time: Time, provider: Provider) -> None:
    guard = await _opened(time, provider)
    waits = []
    for _ in range(6):
        refused = await guard.call("create", provider.call)
        assert isinstance(refused, Throttled)
        waits.append(refused.retry_after)
        time.now += refused.retry_after or 0
        assert await guard.call("create", provider.call) == SILENCE
    assert waits == [OPEN_SECONDS * factor for factor in (1, 2, 4, 8)] + [MAX_OPEN_SECONDS] * 2


async def test_a_canceled_try_leaves_the_next_one_its_turn_and_old_calls_do_not_speak_for_it(
    time: Time, provider: Provider
) -> None:
    guard = guard_of(time, 1_000, 1_000)
    release = asyncio.Event()

    async def late() -> Any:
        await release.wait()
        return SILENCE

    old = asyncio.create_task(guard.call("create", late))
    await asyncio.sleep(0)
    provider.answer = SILENCE
    await _ask(guard, provider, MIN_CALLS)
    time.now += OPEN_SECONDS
    stuck = asyncio.create_task(guard.call("create", asyncio.Event().wait))
    await asyncio.sleep(0)
    assert state_of(guard) is CircuitState.HALF_OPEN
    release.set()
    assert await old == SILENCE
    assert state_of(guard) is CircuitState.HALF_OPEN, "a call from before the circuit opened is no try"
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    provider.answer = NO
    assert await guard.call("create", provider.call) == NO
    assert state_of(guard) is CircuitState.CLOSED


async def test_new_limits_hold_from_the_next_call_on_and_the_same_ones_give_no_new_burst(time: Time, provider: Provider) -> None:
    guard = guard_of(time, 4, 4)
    await _ask(guard, provider, 1)
    guard.limit(Limits(per_second=4, endpoint_per_second=4))
    time.now = 1_000.0
    out = 0
    for _ in range(10):
        out += await _ask(guard, provider, 1)
        time.now = 1_000.0
    assert out == 4 * MAX_WAIT_SECONDS
    guard.limit(Limits(per_second=1_000, endpoint_per_second=1_000))
    assert await _ask(guard, provider, 100) == 100


def test_a_tenants_settings_say_its_limits_and_nonsense_says_nothing() -> None:
    assert limits_of({"provider_limits": {"per_second": 50, "endpoint_per_second": 10}}) == Limits(50, 10)
    assert limits_of({"provider_limits": {"per_second": 50}}) == Limits(50, 50)
    for nonsense in (None, 5, {}, *({"per_second": bad} for bad in (0, -1, "9", True, None, 1e9))):
        assert limits_of({"provider_limits": nonsense}) is None, nonsense
    assert limits_of({}) is None
    assert (LIVE.per_second, LIVE.endpoint_per_second, TEST.per_second) == (100, 25, 25), "as Stripe documents"
    assert UNLIMITED.per_second > 10 * LIVE.per_second
