"""What is declared in `slo.yaml`: objectives with their burn rates, and symptoms."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).with_name("slo.yaml")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(?P<count>\d+)(?P<unit>[smhd])")

Example = dict[str, list[Any]]
"""Series, and what each says when all is well and when it is not.

A value, nothing, how it grows in a minute (`+300`), or the time.
"""


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast a budget may burn before who is told."""

    long: str
    short: str
    times: float
    severity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Something of which a share may be bad."""

    name: str
    says: str
    goal: float
    runbook: str
    bad: str = ""
    good: str = ""
    total: str = ""
    bad_while: str = ""
    limit: str = ""
    example: Example = field(default_factory=dict)

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1 - self.goal / 100, 6)

    @property
    def alert(self) -> str:
        """The name of its alerts."""
        return "Cartwright" + self.name.title().replace("-", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """Something that is told at once."""

    alert: str
    severity: str
    summary: str
    description: str
    runbook: str
    when: str = ""
    limit: str = ""
    rises: str = ""
    within: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    """Of what rises: those by which it is told apart, each with an example."""
    example: Example = field(default_factory=dict)
    lasting: str = "0s"


@dataclass(frozen=True, slots=True)
class Declared:
    """All of it."""

    burns: list[Burn]
    objectives: list[Objective]
    symptoms: list[Symptom]
    told_otherwise: dict[str, str]
    """Runbooks that no figure leads to."""

    @property
    def pages(self) -> dict[str, str]:
        """The runbook of each alert."""
        burning = {each.alert: each.runbook for each in self.objectives}
        return burning | {each.alert: each.runbook for each in self.symptoms}


@cache
def declared() -> Declared:
    """Read it."""
    known = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    burns = [Burn(**each) for each in known["burns"]]
    objectives = [Objective(name=name, **each) for name, each in known["objectives"].items()]
    symptoms = [
        Symptom(**{"lasting" if key == "for" else key: value for key, value in each.items()}) for each in known["symptoms"]
    ]
    for objective in objectives:
        for burn in burns:
            if burn.times * objective.budget >= 1:
                raise ValueError(f"{objective.name}: nothing burns {burn.times} times as fast as {objective.goal} % allows")
    return Declared(burns, objectives, symptoms, known["told_otherwise"])


def seconds_of(duration: str) -> float:
    """How long that is."""
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ValueError(f"{duration}: a duration is a number and one of {', '.join(_SECONDS)}")
    return float(found["count"]) * _SECONDS[found["unit"]]
