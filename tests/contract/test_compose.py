"""The same system for Compose: its file is one, every process has what it requires, and its credentials are usable."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose.credentials import made, write
from deploy.compose.files import FOLDER
from deploy.composition import settings_of
from libs.common.certificates import RootKey, Roots
from libs.common.settings import PREFIX
from services import SERVICES
from tests.contract.charts.asking import told

FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
PROCESSES = [(service, kind) for service in SERVICES for kind in ("api", "worker")]


def test_compose_takes_the_file(request: pytest.FixtureRequest) -> None:
    folder = request.config.cache.mkdir("chart")
    assert "ok" in told(folder, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE)


@pytest.mark.parametrize(("service", "kind"), PROCESSES)
def test_a_process_is_given_what_it_requires_and_nothing_that_it_does_not_know(service: str, kind: str) -> None:
    fields = settings_of(service).model_fields
    given = {name.removeprefix(PREFIX).removesuffix("_FILE").lower() for name in _process(service, kind)["environment"]}
    required = {name for name, field in fields.items() if field.is_required()}
    required |= {"ops_port"} if kind == "api" else {"relay_database_url"}
    assert required - given == set()
    assert given - fields.keys() == set()


def test_every_secret_that_is_named_is_made_and_no_other() -> None:
    names = {name for each in COMPOSE["services"].values() for name in each.get("secrets", ())}
    assert names == COMPOSE["secrets"].keys() == made("sk_test_1").keys() - {"databases.sql"}


def test_everything_of_ours_that_is_mounted_is_there_or_is_made() -> None:
    mounted = {volume.split(":")[0] for each in COMPOSE["services"].values() for volume in each.get("volumes", ())}
    ours = {place for place in mounted if place.startswith(".")} - {"./secrets/databases.sql"}
    assert {place for place in ours if not (FOLDER / place).exists()} == set()
    assert "../observability/dashboards" in ours


def test_credentials_are_made_once_and_belong_to_each_other(tmp_path: Path) -> None:
    write(tmp_path, "sk_test_1")
    kept = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    write(tmp_path, "sk_test_2")
    assert {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()} == kept
    [public] = re.findall(r"CARTWRIGHT_ISSUER_ROOT_PUBLIC_KEY='(.*)'", (tmp_path / ".env").read_text())
    assert RootKey.read("", kept["identity-issuer-root-key"]).public["kid"] in Roots("", public)
    for service in SERVICES:
        [password] = re.findall(rf"CREATE ROLE {service}_app LOGIN PASSWORD '(\w+)'", kept["databases.sql"])
        assert kept[f"{service}-database-url"] == f"postgresql://{service}_app:{password}@postgres:5432/{service}"


def test_the_checker_of_invariants_is_told_where_everything_is_and_prometheus_where_it_is() -> None:
    told = json.loads((FOLDER / "deployment.json").read_text(encoding="utf-8"))
    checker = COMPOSE["services"]["invariants"]
    places = {place for each in told["services"].values() for place in (each["url"], *each["ops"])}
    assert {place.split("/")[2].split(":")[0] for place in places} == {f"{service}-{kind}" for service, kind in PROCESSES}
    named = {told["stripe"]["api_key_file"], told["platform_client"]["secret_file"]}
    assert named == {f"/run/secrets/{name}" for name in checker["secrets"]}
    assert checker["environment"] == {"CARTWRIGHT_DEPLOYMENT": checker["volumes"][0].split(":")[1]}
    asked = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    assert {"gateway", "invariants"} <= {each["job_name"] for each in asked}


def _process(service: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][f"{service}-{kind}"]
    return found
