"""Unit tests for promtool, made of what is declared: every alert is silent while all is well, fires when it is not, and ends."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from deploy.observability.declared import Burn, Declared, Objective, Symptom, seconds_of

STEPS: Final = 4
"""So many samples in the shorter window."""
_LABEL: Final = re.compile(r'(\w+)(=~|=|!=|!~)"([^"]*)"')

Case = dict[str, Any]
"""One file for `promtool test rules`."""
Span = tuple[float | None, int]
"""What a series says, and for how many steps."""


def burning(declared: Declared, burn: Burn, rules: str) -> Case:
    """Of all objectives, side by side: what is beyond a burn rate fires, what is below it does not."""
    step = int(seconds_of(burn.short)) // STEPS
    long = int(seconds_of(burn.long)) // step
    series: dict[str, str] = {}
    checks: list[Case] = []
    for objective in declared.objectives:
        series |= _shares(objective, burn, long) if not objective.bad_while else _times(objective, long)
        where = {"alertname": objective.alert, "severity": burn.severity, "window": burn.long}
        checks += [_firing(where, step * at, count) for at, count in ((long, 0), (2 * long, 1), (2 * long + STEPS + 3, 0))]
    return _case(rules, f"{step}s", [_test(f"{step}s", series, checks)])


def _shares(objective: Objective, burn: Burn, long: int) -> Mapping[str, str]:
    """Bad a tenth less than would be told, then a tenth more, then not at all; so many requests in a step."""
    requests = 1_000_000
    most = burn.times * objective.budget * requests
    # A long window that begins in the quieter time holds less: what is above is above over all of it at its end.
    bad = _growth([(0.9 * most, long), (1.1 * most, long), (0, 2 * STEPS)])
    rest = _growth([(requests - 0.9 * most, long), (requests - 1.1 * most, long), (requests, 2 * STEPS)])
    if objective.good:
        whole = _growth([(requests, 2 * long + 2 * STEPS)])
        return {objective.good: rest, objective.total: whole}
    return {objective.bad: bad, objective.bad.replace('class="5"', 'class="2"'): rest}


def _times(objective: Objective, long: int) -> Mapping[str, str]:
    """Well, then not for as long as the long window, then well again."""
    return {name: _levels([(well, long + 1), (ill, long), (well, 2 * STEPS)]) for name, (well, ill) in objective.example.items()}


def moments(declared: Declared, burn: Burn, rules: str) -> Case:
    """What was bad for a moment is below the rate over the long window, and nobody is told; unless that is a burn by itself."""
    step = int(seconds_of(burn.short)) // STEPS
    long = int(seconds_of(burn.long)) // step
    series: dict[str, str] = {}
    checks: list[Case] = []
    for objective in declared.objectives:
        if objective.bad_while and 1.5 / long < burn.times * objective.budget:
            spans = [(long, 0), (1, 1), (STEPS, 0)]
            series |= {name: _levels([(each[ill], count) for count, ill in spans]) for name, each in objective.example.items()}
            where = {"alertname": objective.alert, "severity": burn.severity, "window": burn.long}
            checks += [_firing(where, step * (long + at), 0) for at in range(STEPS)]
    return _case(rules, f"{step}s", [_test(f"{step}s", series, checks)])


def symptoms(declared: Declared, rules: str) -> Iterator[Case]:
    """Of all, side by side: well, then not, then well again. Those that take longer are looked at less often."""
    for step in (60, 600, 7_200):
        series: dict[str, str] = {}
        checks: list[Case] = []
        for symptom in declared.symptoms:
            if _step_of(symptom) == step:
                told, asked = _of_symptom(symptom, step)
                series |= told
                checks += asked
        yield _case(rules, f"{step}s", [_test(f"{step}s", series, checks)])


def _step_of(symptom: Symptom) -> int:
    takes = max(seconds_of(symptom.lasting), seconds_of(symptom.within or "0s"))
    return 60 if takes <= seconds_of("15m") else 600 if takes <= seconds_of("4h") else 7_200


def _of_symptom(symptom: Symptom, step: int) -> tuple[Mapping[str, str], list[Case]]:
    lasting, reach = int(seconds_of(symptom.lasting)), int(seconds_of(symptom.within or "10m"))
    well = ill = reach // step + 5
    ill += (lasting + int(seconds_of(symptom.limit or "0s"))) // step
    parts = [well, ill, well]
    where = {"alertname": symptom.alert, "severity": symptom.severity}
    checks = [_firing(where, (well - 1) * step, 0), _firing(where, (sum(parts) - 1) * step, 0)]
    if symptom.rises:
        return _rising(symptom, parts, step), [*checks, _firing(where, (well + 1) * step, 3)]
    checks.append(_firing(where, (well + ill - 1) * step, 1))
    if lasting > step:
        checks.append(_firing(where, well * step + lasting - step, 0))
    return {name: _told(values, parts, step) for name, values in symptom.example.items()}, checks


def _rising(symptom: Symptom, parts: list[int], step: int) -> Mapping[str, str]:
    """By one, at four processes: one had counted before, one counts for the first time, one has just begun; and of one, which
    has run for long, Prometheus had not heard before."""
    well, ill, _well = parts
    name, _, matchers = symptom.rises.partition("{")
    labels = {key: value for key, kind, value in _LABEL.findall(matchers) if kind == "="} | symptom.labels
    says: dict[str, list[Span]] = {
        "before": [(3, well), (4, ill + well)],
        "first": [(None, well), (1, ill + well)],
        "begun": [(None, well), (1, ill + well)],
        "unheard": [(None, well), (7, ill + well)],
    }
    where = {who: {"cartwright_service": who, "instance": f"{who} of {symptom.alert}"} for who in says}
    found = {_series(name, {**labels, **where[who]}): _levels(spans) for who, spans in says.items()}
    heard = {"before": 0, "first": 0, "begun": well, "unheard": well}
    for who, since in heard.items():
        began = (since if who == "begun" else -10_000) * step
        for series, value in (("up", 1), ("process_start_time_seconds", began)):
            spans: list[Span] = [(None, since), (value, sum(parts) - since)] if since else [(value, sum(parts))]
            found[_series(series, {"instance": where[who]["instance"]})] = _levels(spans)
    return found


def _told(values: list[Any], parts: list[int], step: int) -> str:
    """What a series says: a level, how a counter grows in a minute, or the time, which stands still when it is not well."""
    well, ill = values
    if well == "now":
        before, during, after = parts
        still = f"{(before - 1) * step}+0x{during - 1}"
        return f"0+{step}x{before - 1} {still} {(before + during) * step}+{step}x{after - 1}"
    spans = list(zip([well, ill, well], parts, strict=True))
    return _growth([(float(value) * step / 60, count) for value, count in spans]) if isinstance(well, str) else _levels(spans)


def _levels(spans: Sequence[Span]) -> str:
    return " ".join(f"_x{count}" if value is None else f"{value:g}+0x{count - 1}" for value, count in spans)


def _growth(spans: list[tuple[float, int]]) -> str:
    at, told = 0.0, []
    for by, count in spans:
        told.append(f"{at:.6f}+{by:.6f}x{count - 1}")
        at += by * count
    return " ".join(told)


def _series(name: str, labels: Mapping[str, str]) -> str:
    matched = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{matched}}}"


def _firing(where: Mapping[str, str], at_seconds: int, count: int) -> Case:
    """So many of these fire then, whatever else does."""
    counted = f"count({_series('ALERTS', {**where, 'alertstate': 'firing'})}) or vector(0)"
    return {"expr": counted, "eval_time": f"{at_seconds}s", "exp_samples": [{"labels": "{}", "value": count}]}


def _test(interval: str, series: Mapping[str, str], checks: list[Case]) -> Case:
    given = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": interval, "input_series": given, "promql_expr_test": checks}


def _case(rules: str, interval: str, tests: list[Case]) -> Case:
    return {"rule_files": [rules], "evaluation_interval": interval, "tests": tests}
