"""Walks by their seed: what each is like, how it ends, and its story should it break a promise."""

import random

from tests.unit.joint.house import FindingError, Settings
from tests.unit.joint.rest import come_to_rest
from tests.unit.joint.steps import take
from tests.unit.joint.verdict import findings
from tests.unit.joint.walk import Walk

QUIET_STEPS = (0, 0, 10, 20, 30)
FEWEST_STEPS, MOST_STEPS = 15, 90


def settings_of(seed: int) -> Settings:
    """Every combination comes up within 32 walks that follow each other."""
    bits = [bool(seed >> place & 1) for place in range(5)]
    by_hand, lapses, on_shipment, loses, exchanges = bits
    return Settings(by_hand, lapses, on_shipment, loses, "eur" if exchanges else "gbp")


def walk(seed: int) -> Walk:
    """Walk, come to rest, and be judged. Raises FindingError with the seed and the whole story."""
    walked = Walk(seed, settings_of(seed))
    try:
        chance = random.Random(seed)
        take(walked, chance.choice(QUIET_STEPS), chance.randint(FEWEST_STEPS, MOST_STEPS))
        come_to_rest(walked)
        if found := findings(walked):
            walked.house.fail("; ".join(found))
    except Exception as error:
        story = "\n  ".join(walked.house.story)
        raise FindingError(f"walk {seed} ({walked.settings}):\n  {story}\n{type(error).__name__}: {error}") from error
    return walked
