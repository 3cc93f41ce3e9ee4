"""`gateway config`, as somebody uses it who runs Envoy elsewhere."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app


def _said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gateway", "config", *arguments])
    return result.exit_code, result.output


def test_it_writes_the_files_and_says_how_to_begin(tmp_path: Path) -> None:
    places = ["--service", "cart=10.0.0.7:9001:9002", "--service", "cart=10.0.0.8:9001:9002"]
    code, told = _said(str(tmp_path), *places, "--issuer", "https://id.example")
    assert (code, told) == (0, f"envoy -c {tmp_path / 'envoy.json'}\n")
    clusters = {each["name"]: each for each in json.loads((tmp_path / "clusters.json").read_text())["resources"]}
    assert (clusters["cart"]["type"], clusters["checkout"]["type"]) == ("STATIC", "STRICT_DNS")
    assert len(clusters["cart"]["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2
    before = {file.name: file.stat().st_ino for file in tmp_path.iterdir()}
    assert _said(str(tmp_path), *places, "--issuer", "https://id.example")[0] == 0
    assert {file.name: file.stat().st_ino for file in tmp_path.iterdir()} == before, "what is the same is not replaced"


def test_it_is_watched_from_elsewhere_at_two_paths_and_only_when_it_is_to_be(tmp_path: Path) -> None:
    assert _said(str(tmp_path), "--watched-port", "8281")[0] == 0
    made = json.loads((tmp_path / "envoy.json").read_text())
    [listener] = made["static_resources"]["listeners"]
    [manager] = (each["typed_config"] for chain in listener["filter_chains"] for each in chain["filters"])
    [host] = manager["route_config"]["virtual_hosts"]
    assert {route["match"]["path"] for route in host["routes"]} == {"/ready", "/stats/prometheus"}
    assert made["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    assert _said(str(tmp_path))[0] == 0
    assert "static_resources" not in json.loads((tmp_path / "envoy.json").read_text())


@pytest.mark.parametrize(
    "wrong",
    [("--service", "cart=10.0.0.7"), ("--service", "till=a:1:2"), ("--certificate", "a.pem"), ("--http3",)],
    ids=lambda wrong: wrong[-1],
)
def test_it_says_what_is_wrong_and_writes_nothing(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    assert _said(str(tmp_path / "new"), *wrong)[0] == 2
    assert not (tmp_path / "new").exists()
