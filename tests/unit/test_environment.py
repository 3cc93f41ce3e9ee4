"""What each process is given of the environment, and which names nobody knows."""

import json
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from deploy.local.environment import Wiring, known_names, refuse_unknown_variables
from deploy.local.errors import StackError
from deploy.local.gateway import consoles, shops
from deploy.local.master_keys import SEALED_WITH, MasterKeyFiles
from deploy.local.state import Home
from services import SERVICES

PREFIX = "CARTWRIGHT_"
ROOT_KEY = str(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1())))
WIRING = Wiring(
    admin_url="postgresql://admin:hush@127.0.0.1:5432/postgres",
    bootstrap_servers="127.0.0.1:9092",
    issuer="http://127.0.0.1:8081",
    issuer_root_key=ROOT_KEY,
    master_keys=lambda: {"MASTER_KEY": "a master key", "PREVIOUS_MASTER_KEY": "one before"},
    stripe_api_base="http://127.0.0.1:12111",
    stripe_api_key="sk_test_a",
    stripe_webhook_secret="whsec_a",
    platform_secret_file=Path("/nowhere"),
)
EVERYBODYS = {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "ISSUER", "ISSUER_ROOT_PUBLIC_KEY", "JWKS_URL", "HTTP_HOST", "HTTP_PORT"}
STRIPES = {"STRIPE_API_BASE", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a variable of ours."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    return monkeypatch


def _ours(environment: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}


@pytest.mark.parametrize(
    ("service", "own"),
    [
        ("cart", set()),
        ("checkout", set()),
        ("identity", {"ISSUER_ROOT_KEY", "SHOWS_INVITATIONS", "SIGNING_KEY_LEAD_SECONDS"}),
        ("payments", {*STRIPES}),
    ],
)
@pytest.mark.usefixtures("environment")
def test_a_process_is_given_what_its_service_reads_and_no_more(service: str, own: set[str]) -> None:
    assert _ours(WIRING.serving(service, "api", 1, 2)).keys() == EVERYBODYS | own | {"OPS_HOST", "OPS_PORT"}
    assert _ours(WIRING.serving(service, "worker", 1, 2)).keys() == EVERYBODYS | own | {"RELAY_DATABASE_URL"}
    keeps_sealed = service in SEALED_WITH
    assert _ours(WIRING.secrets(service)).keys() == ({"MASTER_KEY", "PREVIOUS_MASTER_KEY"} if keeps_sealed else set())


def test_what_the_user_sets_goes_to_the_services_that_read_it(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_text("the master key before\n", encoding="utf-8")
    environment.setenv("CARTWRIGHT_LOG_LEVEL", "debug")
    environment.setenv("CARTWRIGHT_CHECKOUT_TTL_SECONDS", "60")
    environment.setenv("CARTWRIGHT_PREVIOUS_MASTER_KEY_FILE", str(before))
    given = {service: _ours(WIRING.serving(service, "api", 1, 2)) for service in SERVICES}
    assert all(each["LOG_LEVEL"] == "debug" for each in given.values())
    assert {service for service, each in given.items() if "CHECKOUT_TTL_SECONDS" in each} == {"checkout"}
    assert {service for service, each in given.items() if "PREVIOUS_MASTER_KEY" in each} == {"identity", "payments"}
    assert given["payments"]["PREVIOUS_MASTER_KEY"] == "the master key before"


def test_where_the_console_is_is_told_to_identity_unless_the_user_says_otherwise(environment: pytest.MonkeyPatch) -> None:
    wiring = replace(WIRING, console_urls=consoles(8080))
    given = {service: _ours(wiring.serving(service, "api", 1, 2)).get("CONSOLE_URLS") for service in SERVICES}
    places = "http://127.0.0.1:8080/console/ http://localhost:8080/console/"
    assert given == dict.fromkeys(SERVICES) | {"identity": places}
    environment.setenv("CARTWRIGHT_CONSOLE_URLS", "https://shop.test/console/")
    assert _ours(wiring.serving("identity", "api", 1, 2))["CONSOLE_URLS"] == "https://shop.test/console/"


def test_where_the_shop_is_is_told_to_checkout_unless_the_user_says_otherwise(environment: pytest.MonkeyPatch) -> None:
    wiring = replace(WIRING, shop_urls=shops(8080))
    given = {service: _ours(wiring.serving(service, "api", 1, 2)).get("SHOP_URLS") for service in SERVICES}
    assert given == dict.fromkeys(SERVICES) | {"checkout": "http://127.0.0.1:8080/ http://localhost:8080/"}
    environment.setenv("CARTWRIGHT_SHOP_URLS", "https://shop.test/")
    assert _ours(wiring.serving("checkout", "api", 1, 2))["SHOP_URLS"] == "https://shop.test/"


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "HTTP_PORT", "OPS_PORT", "TOPIC_PREFIX", "RELAY_DATABASE_URL", "STRIPE_API_BASE"]
)
def test_what_the_stack_decides_the_user_does_not(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(PREFIX + name, "the user's")
    assert "the user's" not in WIRING.serving("payments", "api", 1, 2).values()


@pytest.mark.parametrize("serving", [None, *SERVICES])
@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_a_name_that_any_service_reads_is_known_to_all(environment: pytest.MonkeyPatch, serving: str | None, suffix: str) -> None:
    for name in known_names():
        environment.setenv(PREFIX + name + suffix, "x")
    refuse_unknown_variables(serving)


@pytest.mark.parametrize("name", ["CARTWRIGHT_DATABSE_URL", "CARTWRIGHT_", "CARTWRIGHT_FILE", "CARTWRIGHT_NONSENSE_FILE"])
@pytest.mark.parametrize("serving", [None, "cart"])
def test_a_name_that_nobody_reads_is_refused_by_name(environment: pytest.MonkeyPatch, name: str, serving: str | None) -> None:
    environment.setenv("CARTWRIGHT_ORPHAN_MONEY_SECONDS", "60")
    environment.setenv(name, "x")
    with pytest.raises(StackError, match=rf"^unknown environment variable {name}: .*$"):
        refuse_unknown_variables(serving)


KUBERNETES = {
    "CART_SERVICE_HOST": "10.0.0.1",
    "CART_SERVICE_PORT": "80",
    "CART_SERVICE_PORT_HTTP": "80",
    "CART_PORT": "tcp://10.0.0.1:80",
    "CART_PORT_80_TCP": "tcp://10.0.0.1:80",
    "CART_PORT_80_TCP_PROTO": "tcp",
    "CART_PORT_80_TCP_PORT": "80",
    "CART_PORT_80_TCP_ADDR": "10.0.0.1",
    "CHECKOUT_API_METRICS_SERVICE_HOST": "fd00::1",
    "SERVICE_HOST": "10.0.0.2",
    "PORT": "udp://10.0.0.2:53",
}
"""What a pod is given for Services called `cartwright-cart`, `cartwright-checkout-api-metrics` and `cartwright`."""


@pytest.mark.parametrize("serving", [None, *SERVICES])
def test_what_kubernetes_tells_of_services_of_that_name_stops_nobody(
    environment: pytest.MonkeyPatch, serving: str | None
) -> None:
    for name, value in KUBERNETES.items():
        environment.setenv(PREFIX + name, value)
    refuse_unknown_variables(serving)
    environment.setenv("CARTWRIGHT_CART_PORT", "8082")
    with pytest.raises(StackError, match="CARTWRIGHT_CART_PORT"):
        refuse_unknown_variables(serving)


@pytest.mark.usefixtures("environment")
def test_a_rotation_of_the_master_key_loses_neither_key_wherever_it_stops(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    files = MasterKeyFiles(home)
    first = files.environment()["MASTER_KEY"]
    assert files.environment() == {"MASTER_KEY": first}
    home.secret("previous-master-key", lambda: first)  # as far as one came that was killed then
    files.begin()
    second = files.environment()["MASTER_KEY"]
    assert (second != first, files.environment()) == (True, {"MASTER_KEY": second, "PREVIOUS_MASTER_KEY": first})
    files.begin()  # taken up again: what is sealed by now must still open
    assert files.environment() == {"MASTER_KEY": second, "PREVIOUS_MASTER_KEY": first}
    files.finish()
    assert files.environment() == {"MASTER_KEY": second}
    assert not files.is_rotating


@pytest.mark.usefixtures("environment")
def test_workers_of_a_cell_work_on_its_databases_and_apis_are_told_of_all_cells() -> None:
    wiring = replace(WIRING, cells=("east",), database_prefix="t_")
    there, here = (_ours(wiring.serving("cart", "worker", 1, 1, cell)) for cell in ("east", "main"))
    assert there["CELL"] == "east"
    assert "CELL" not in here
    databases = [urlsplit(each[name]).path for each in (there, here) for name in ("DATABASE_URL", "RELAY_DATABASE_URL")]
    assert databases == ["/t_east_cart"] * 2 + ["/t_cart"] * 2
    api = _ours(wiring.serving("cart", "api", 1, 2))
    assert json.loads(api["CELL_DATABASE_URLS"]) == {"east": there["DATABASE_URL"]}
    assert urlsplit(api["DATABASE_URL"]).path == "/t_cart"
    others = [there, here, _ours(wiring.serving("identity", "api", 1, 2)), _ours(WIRING.serving("cart", "api", 1, 2))]
    assert not any("CELL_DATABASE_URLS" in each for each in others)
