"""Cells of a local stack: what their processes and databases are called, and how they are told of."""

from pathlib import Path

import pytest

from deploy.local.cells import asked
from deploy.local.copies import operator_port, parsed, ports_of, processes
from deploy.local.databases import cell_prefix, database_url
from deploy.local.description import CellAddress, ServiceAddress, StackDescription
from deploy.local.errors import StackError
from services import SERVICES

ADMIN = f"postgresql://postgres:{'s' * 40}@127.0.0.1:5432/postgres"


def test_a_cell_has_one_worker_of_each_service_but_identity_each_with_a_port_of_its_own() -> None:
    names = [*processes(SERVICES, {"cart.worker": 2}, ["east", "west"])]
    there = [name for name in names if "@" in name]
    assert there == [f"{service}.worker@{cell}" for cell in ("east", "west") for service in ("cart", "checkout", "payments")]
    assert [name for name in names if "@" not in name] == [*processes(SERVICES, {"cart.worker": 2})]
    assert len({operator_port(name) for name in there}) == len(there)
    assert {*there} <= {*ports_of(names)}
    assert parsed("cart.worker@east") == ("cart", "worker", "east")
    assert parsed("cart.worker.2") == ("cart", "worker", "main")


def test_a_cells_databases_begin_with_its_name_and_those_of_the_main_one_are_called_as_ever() -> None:
    assert [cell_prefix(cell, "t_") for cell in ("main", "east")] == ["t_", "t_east_"]
    assert database_url(ADMIN, "cart", "owner", cell_prefix("east")).endswith("/east_cart")
    assert database_url(ADMIN, "cart", "owner", cell_prefix("main")) == database_url(ADMIN, "cart", "owner")


@pytest.mark.parametrize("name", ["", "main", "East", "2nd", "a-b", "east\n", "a" * 17])
def test_what_is_no_cell_besides_the_main_one_is_refused(name: str) -> None:
    with pytest.raises(StackError, match="cell"):
        asked(["east", name])


def test_cells_are_asked_for_once_each() -> None:
    assert asked(["east", "west2", "east"]) == ("east", "west2")


def test_a_stack_tells_of_its_cells_what_it_is_told_itself_and_of_a_stopped_one_no_address() -> None:
    cell = CellAddress({"cart": (7,), "checkout": ()}, {"cart": ("http://127.0.0.1:1",), "checkout": ("http://127.0.0.1:2",)})
    stack = StackDescription(
        state="running",
        home=Path("/home"),
        services={"cart": ServiceAddress()},
        postgres_host="127.0.0.1",
        postgres_port=5432,
        kafka_bootstrap_servers=None,
        stripe_api_base=None,
        stripe_api_key=None,
        platform_client_id="platform",
        platform_secret_file=Path("/secret"),
        database_prefix="t_",
        cells={"east": cell},
    )
    assert stack.as_json()["cells"] == {
        "east": {
            "workers": {"cart": [7], "checkout": []},
            "ops": {"cart": ["http://127.0.0.1:1"], "checkout": ["http://127.0.0.1:2"]},
        }
    }
    assert StackDescription.from_json(stack.as_json(), database_prefix="t_") == stack
    assert stack.stopped().cells == {"east": CellAddress({}, {})}
    before = {name: value for name, value in stack.as_json().items() if name != "cells"}
    assert StackDescription.from_json(before).cells == {}, "what a version before wrote is read all the same"
