"""The fault plan: rules that make chosen requests and webhooks late, lost or wrong, set over `/_control/faults`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Any


class Fault(StrEnum):
    """What a rule does to the request it strikes."""

    LATENCY = "latency"
    HANG = "hang"
    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    ERROR = "500"
    ERROR_AFTER = "500_after"
    TOO_MANY = "429"
    CONFLICT = "409"
    WEBHOOK_LOSS = "webhook_loss"
    WEBHOOK_DUPLICATE = "webhook_duplicate"
    WEBHOOK_DELAY = "webhook_delay"
    WEBHOOK_REORDER = "webhook_reorder"


_OF_WEBHOOKS = frozenset({Fault.WEBHOOK_LOSS, Fault.WEBHOOK_DUPLICATE, Fault.WEBHOOK_DELAY, Fault.WEBHOOK_REORDER})


class PlanError(ValueError):
    """The plan cannot be read; the message names the rule and the member."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: which requests or which events (all, unless it says), what happens, how often."""

    fault: Fault
    method: str | None = None
    path: str | None = None
    event: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    delay_ms: float = 0
    times: int | None = None
    probability: float = 1.0
    seed: int = 0

    def fits(self, method: str, path: str, metadata: Callable[[], Mapping[str, str]]) -> bool:
        """Tell whether the rule speaks of this request; `path` may hold `*`."""
        if self.method not in {None, method}:
            return False
        if self.path is not None and not fnmatchcase(path, self.path):
            return False
        return not self.metadata or set(self.metadata) <= set(metadata().items())

    def fits_event(self, kind: str, metadata: Callable[[], Mapping[str, str]]) -> bool:
        """Tell whether the rule speaks of an event of this type; `event` may hold `*`."""
        if self.event is not None and not fnmatchcase(kind, self.event):
            return False
        return not self.metadata or set(self.metadata) <= set(metadata().items())


class Plan:
    """The rules in force, with their counts and their own seeded chance."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self.rules = rules or []
        self.struck = [0] * len(self.rules)
        # The draws decide which test requests fail, and must be the same in every run.
        self._chance = [Random(rule.seed) for rule in self.rules]  # noqa: S311

        numbered = list(enumerate(self.rules))
        self._of_requests = [(index, rule) for index, rule in numbered if rule.fault not in _OF_WEBHOOKS]
        self._of_webhooks = [(index, rule) for index, rule in numbered if rule.fault in _OF_WEBHOOKS]

    def __bool__(self) -> bool:
        """Tell whether a request may be struck."""
        return bool(self._of_requests)

    def strike(self, method: str, path: str, metadata: Callable[[], Mapping[str, str]]) -> Rule | None:
        """Return the first rule that strikes this request, counting it."""
        for index, rule in self._of_requests:
            if not self._is_spent(index) and rule.fits(method, path, metadata) and self._draws(index):
                return rule
        return None

    def strike_webhook(self, kind: str, metadata: Callable[[], Mapping[str, str]]) -> list[tuple[Fault, float]]:
        """Return every fault that strikes the sending of an event, with its delay in seconds; a reordering draws its own."""
        struck = []
        for index, rule in self._of_webhooks:
            if not self._is_spent(index) and rule.fits_event(kind, metadata) and self._draws(index):
                share = self._chance[index].random() if rule.fault is Fault.WEBHOOK_REORDER else 1.0
                struck.append((rule.fault, share * rule.delay_ms / 1000))
        return struck

    def _is_spent(self, index: int) -> bool:
        times = self.rules[index].times
        return times is not None and self.struck[index] >= times

    def _draws(self, index: int) -> bool:
        if self._chance[index].random() >= self.rules[index].probability:
            return False
        self.struck[index] += 1
        return True

    def view(self) -> dict[str, Any]:
        """Return the plan with the number of requests each rule has struck."""
        return {"rules": [_rule_view(rule, struck) for rule, struck in zip(self.rules, self.struck, strict=True)]}


def read_plan(document: object) -> Plan:
    """Read `{"rules": [...]}` or the bare list of rules."""
    rules = document.get("rules") if isinstance(document, dict) else document
    if not isinstance(rules, list):
        message = "a fault plan is a list of rules, or an object with that list under 'rules'"
        raise PlanError(message)
    return Plan([_read_rule(number, rule) for number, rule in enumerate(rules)])


_RULE_MEMBERS = frozenset({"match", "fault", "delay_ms", "times", "probability", "seed"})
_MATCH_MEMBERS = frozenset({"method", "path", "event", "metadata"})


def _read_rule(number: int, rule: object) -> Rule:
    where = f"rule {number}"
    members = _object(rule, where, _RULE_MEMBERS)
    match = _object(members.get("match", {}), f"{where}: match", _MATCH_MEMBERS)
    try:
        times = members.get("times")
        return Rule(
            fault=Fault(str(members.get("fault"))),
            method=str(match["method"]).upper() if "method" in match else None,
            path=str(match["path"]) if "path" in match else None,
            event=str(match["event"]) if "event" in match else None,
            metadata=tuple((str(key), str(value)) for key, value in dict(match.get("metadata", {})).items()),
            delay_ms=max(0.0, float(members.get("delay_ms", 0))),
            times=None if times is None else int(times),
            probability=float(members.get("probability", 1.0)),
            seed=int(members.get("seed", number)),
        )
    except (TypeError, ValueError) as error:
        message = f"{where}: {error}; faults are {', '.join(Fault)}"
        raise PlanError(message) from error


def _object(value: object, where: str, allowed: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        message = f"{where} must be an object"
        raise PlanError(message)
    if unknown := sorted(set(value) - allowed):
        message = f"{where} has no member {unknown[0]!r}; it may have {', '.join(sorted(allowed))}"
        raise PlanError(message)
    return value


def _rule_view(rule: Rule, struck: int) -> dict[str, Any]:
    match = {"method": rule.method, "path": rule.path, "event": rule.event, "metadata": dict(rule.metadata) or None}
    return {
        "match": {name: value for name, value in match.items() if value is not None},
        "fault": rule.fault,
        "delay_ms": rule.delay_ms,
        "times": rule.times,
        "probability": rule.probability,
        "seed": rule.seed,
        "struck": struck,
    }
