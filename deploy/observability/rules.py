"""Prometheus' rules, made of what is declared: error ratios, multi-window burn-rate alerts, and symptoms.

The form is that of the SRE workbook, chapter 5: an alert is a long window, in which enough of the budget is gone to matter, and a
short one, by which it ends soon after what caused it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from deploy.observability.declared import Burn, Declared, Objective, Symptom, seconds_of

PAGES: Final = "docs/runbooks/"
_SPAN: Final = re.compile(r"(\[|offset )(\d+[smhd])")
_LEAST_LIMIT_SECONDS: Final = 3.0
"""Of shortened rules: the processes look at most of what they tell every second or two."""
_LONGEST_WAIT_SECONDS: Final = 60
"""Of shortened rules: what must have been so for a day would be waited for longer than for all the others."""

Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """By what every duration of the rules is divided: 1 for who runs it, more for a drill that cannot wait for days."""

    factor: int = 1

    def span(self, duration: str) -> str:
        """A duration as Prometheus writes it."""
        return duration if self.factor == 1 else f"{round(seconds_of(duration) * 1_000 / self.factor)}ms"

    def wait(self, duration: str) -> str:
        """How long it must have been so before it is told."""
        is_long = self.factor > 1 and seconds_of(duration) / self.factor > _LONGEST_WAIT_SECONDS
        return f"{_LONGEST_WAIT_SECONDS}s" if is_long else self.span(duration)

    def seconds(self, duration: str) -> float:
        """A limit. It is not shortened below what the processes can tell apart."""
        seconds = seconds_of(duration)
        return seconds if self.factor == 1 else max(_LEAST_LIMIT_SECONDS, seconds / self.factor)

    def of(self, expression: str, limit: str = "") -> str:
        """An expression with all its durations at this pace."""
        paced = _SPAN.sub(lambda match: match[1] + self.span(match[2]), expression)
        return paced.replace("$limit", f"{self.seconds(limit):g}") if limit else paced


AS_DECLARED: Final = Pace()


def groups(declared: Declared, pace: Pace) -> list[dict[str, Any]]:
    """All rules. What an alert reads is in its own group, whose rules are looked at one after another."""
    of_objectives = [
        {"name": f"cartwright-{each.name}", "rules": [*_objective(each, declared.burns, pace)]} for each in declared.objectives
    ]
    return [*of_objectives, {"name": "cartwright-symptoms", "rules": [_symptom(each, pace) for each in declared.symptoms]}]


def ratio(window: str) -> str:
    """The series of the share that was bad in a window."""
    return f"cartwright:slo_errors:ratio_{window}"


def windows(burns: list[Burn]) -> list[str]:
    """All that are looked at, the shortest first."""
    return sorted({window for burn in burns for window in (burn.long, burn.short)}, key=seconds_of)


def _objective(objective: Objective, burns: list[Burn], pace: Pace) -> Iterator[Rule]:
    yield _record(objective, "cartwright:slo_budget:ratio", f"vector({objective.budget:g})")
    if objective.bad_while:
        yield _record(objective, "cartwright:slo_is_bad:bool", pace.of(objective.bad_while, objective.limit))
    for window in windows(burns):
        yield _record(objective, ratio(window), _errors(objective, pace.span(window)))
    for burn in burns:
        yield _burning(objective, burn, pace)


def _record(objective: Objective, name: str, expression: str) -> Rule:
    return {"record": name, "expr": expression, "labels": {"slo": objective.name}}


def _errors(objective: Objective, window: str) -> str:
    if objective.bad_while:
        return f'avg_over_time(cartwright:slo_is_bad:bool{{slo="{objective.name}"}}[{window}])'
    total = f"sum by (namespace) (rate({objective.total}[{window}]))"
    if objective.good:
        return f"1 - sum by (namespace) (rate({objective.good}[{window}])) / {total}"
    return f"(sum by (namespace) (rate({objective.bad}[{window}])) or {total} * 0) / {total}"


def _burning(objective: Objective, burn: Burn, pace: Pace) -> Rule:
    most = f"{burn.times:g} * {objective.budget:g}"
    both = (f'{ratio(window)}{{slo="{objective.name}"}} > {most}' for window in (burn.long, burn.short))
    gone = f"{seconds_of('30d') / burn.times / 86_400:.0f}" if burn.times > 1 else "30"
    return {
        "alert": objective.alert,
        "expr": " and ".join(both),
        "labels": {"severity": burn.severity, "slo": objective.name, "window": burn.long},
        "annotations": {
            "summary": f"The budget of {objective.name} burns {burn.times:g} times as fast as it may, over {burn.long}.",
            "description": (
                f"{{{{ $value | humanizePercentage }}}} was bad over {pace.span(burn.long)}; {objective.budget:.1%} may be. "
                f"At this pace a month's budget is gone in {gone} days. Good is: {objective.says}"
            ),
            "runbook_url": f"{PAGES}{objective.runbook}.md",
        },
    }


def _symptom(symptom: Symptom, pace: Pace) -> Rule:
    lasting = {} if symptom.lasting == "0s" else {"for": pace.wait(symptom.lasting)}
    return {
        "alert": symptom.alert,
        "expr": _risen(symptom, pace) if symptom.rises else pace.of(symptom.when, symptom.limit),
        **lasting,
        "labels": {"severity": symptom.severity},
        "annotations": {
            "summary": symptom.summary,
            "description": symptom.description,
            "runbook_url": f"{PAGES}{symptom.runbook}.md",
        },
    }


def _risen(symptom: Symptom, pace: Pace) -> str:
    """A counter with labels is not there before it counts, and `increase` does not see its first: so what is new counts as well.

    What Prometheus alone did not see before, for it was down itself, is not new.
    """
    counter, within = symptom.rises, pace.span(symptom.within)
    apart = ", ".join(["namespace", "cartwright_service", *symptom.labels])
    seconds = seconds_of(symptom.within) / pace.factor
    watched = f"(up offset {within} or process_start_time_seconds > time() - {seconds:g})"
    new = f"({counter} > 0 unless {counter} offset {within}) and on (instance) {watched}"
    return f"max by ({apart}) (increase({counter}[{within}]) > 0 or {new})"
