"""Whose fault it is when much fails: one tenant's own, or ours."""

from uuid import UUID, uuid4

import pytest

from libs.common.messaging.brake import Brake, TooManyFailuresError

OURS, THEIRS = "order.v1", "fulfilment.v1"
TENANTS = [uuid4() for _ in range(8)]


class Stretch:
    """A brake, and batches that are judged and then committed."""

    def __init__(self) -> None:
        self.brake = Brake(share=0.5, foreign={THEIRS})

    def batch(self, topic: str, decided: dict[UUID, int], failed: dict[UUID, int]) -> None:
        of_topic = {(topic, tenant): count for tenant, count in decided.items()}
        failures = {(topic, tenant): (count, "ValueError: no") for tenant, count in failed.items()}
        self.brake.judge(of_topic, failures)
        self.brake.settled(of_topic, failures)

    def one_by_one(self, topic: str, failing: list[UUID]) -> None:
        for tenant in failing:
            self.batch(topic, {tenant: 1}, {tenant: 1})


@pytest.mark.parametrize("topic", [OURS, THEIRS])
def test_however_much_one_or_two_of_many_tenants_fail_nothing_stops(topic: str) -> None:
    stretch = Stretch()
    stretch.batch(topic, dict.fromkeys(TENANTS, 1), {})
    for _ in range(20):
        stretch.batch(topic, {TENANTS[0]: 900, TENANTS[1]: 900}, {TENANTS[0]: 900, TENANTS[1]: 900})


def test_a_foreign_source_stops_nothing_however_few_others_are_heard_of() -> None:
    stretch = Stretch()
    for tenants in (TENANTS[:1], TENANTS[:2]):
        stretch.batch(THEIRS, dict.fromkeys(tenants, 500), dict.fromkeys(tenants, 500))


def test_when_most_tenants_fail_the_topic_stops_also_if_their_messages_come_one_by_one() -> None:
    stretch = Stretch()
    stretch.batch(OURS, dict.fromkeys(TENANTS, 1), {})
    with pytest.raises(TooManyFailuresError, match="tenants fail") as caught:
        stretch.one_by_one(OURS, 20 * TENANTS)
    assert caught.value.topic == OURS


def test_a_house_of_one_tenant_stops_for_its_own_events() -> None:
    with pytest.raises(TooManyFailuresError):
        Stretch().batch(OURS, {TENANTS[0]: 40}, {TENANTS[0]: 40})


def test_a_stop_is_judged_anew_when_it_is_tried_again() -> None:
    stretch = Stretch()
    for _ in range(3):
        with pytest.raises(TooManyFailuresError):
            stretch.batch(OURS, dict.fromkeys(TENANTS, 9), dict.fromkeys(TENANTS, 9))
    stretch.batch(OURS, dict.fromkeys(TENANTS, 9), {})
