"""The alerts, by Prometheus' own tool: each is silent while all is well, fires when it is not, ends, and leads to a page."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.state import ROOT
from deploy.observability import dashboards
from deploy.observability.declared import declared
from deploy.observability.files import RULES
from tests.contract.alerts.cases import Case, burning, moments, symptoms
from tests.shared.prometheus import program

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"] if "alert" in rule
]
RUNBOOKS = {file.stem for file in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}


@pytest.fixture
def promtool(request: pytest.FixtureRequest) -> Path:
    return program("promtool", request.config.cache.mkdir("prometheus"))


def _tested(promtool: Path, folder: Path, cases: list[Case]) -> None:
    files = []
    for number, case in enumerate(cases):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(case))
    told = subprocess.run([str(promtool), "test", "rules", *map(str, files)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-4_000:] + told.stderr[-4_000:]
    assert told.stdout.count("SUCCESS") == len(cases)


def test_prometheus_takes_the_rules_and_every_expression_of_a_dashboard(promtool: Path, tmp_path: Path) -> None:
    panels = [panel for file in dashboards.files() for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]]
    shown = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel.get("targets", ())]
    assert len(shown) > len(dashboards.files())
    rules = [{"record": f"shown:{number}", "expr": expression} for number, expression in enumerate(shown)]
    (file := tmp_path / "shown.yaml").write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    told = subprocess.run([str(promtool), "check", "rules", str(RULES), str(file)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"SUCCESS: {len(shown)} rules found" in told.stdout


def test_a_budget_that_burns_too_fast_is_told_by_each_pair_of_windows_and_one_that_does_not_is_not(
    promtool: Path, tmp_path: Path
) -> None:
    _tested(promtool, tmp_path, [burning(declared(), burn, str(RULES)) for burn in declared().burns])


def test_nobody_is_woken_by_what_was_bad_for_a_moment(promtool: Path, tmp_path: Path) -> None:
    cases = [moments(declared(), burn, str(RULES)) for burn in declared().burns]
    assert any(case["tests"][0]["promql_expr_test"] for case in cases)
    _tested(promtool, tmp_path, cases)


def test_a_symptom_is_told_when_it_is_there_and_not_before_and_not_after(promtool: Path, tmp_path: Path) -> None:
    cases = [*symptoms(declared(), str(RULES))]
    asked = yaml.safe_dump(cases)
    assert [each.alert for each in declared().symptoms if f'"{each.alert}"' not in asked] == []
    _tested(promtool, tmp_path, cases)
    case = cases[-1]
    case["tests"][0]["promql_expr_test"][0]["exp_samples"][0]["value"] = 5
    with pytest.raises(AssertionError, match="FAILED"):
        _tested(promtool, tmp_path, [case])


def test_every_alert_says_what_it_is_and_leads_to_a_page_that_is_there() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert all(alert["annotations"].values())
    assert {alert["annotations"]["runbook_url"] for alert in ALERTS} <= {f"docs/runbooks/{name}.md" for name in RUNBOOKS}


def test_every_page_has_an_alert_that_leads_to_it_and_names_it_or_says_what_else_does() -> None:
    of_alerts = {(Path(alert["annotations"]["runbook_url"]).stem, alert["alert"]) for alert in ALERTS}
    assert {page for page, _ in of_alerts} | declared().told_otherwise.keys() == RUNBOOKS
    assert {page for page, _ in of_alerts} & declared().told_otherwise.keys() == set()
    named = {
        (page, alert)
        for page in RUNBOOKS
        for alert in re.findall(r"`(Cartwright\w+)`", (ROOT / "docs" / "runbooks" / f"{page}.md").read_text(encoding="utf-8"))
    }
    assert named == of_alerts
