"""What the reference says is so: every code has its advice, and others' tools find nothing wrong with the document."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import codes, documents, reference
from deploy.local.state import ROOT
from libs.common.http.openapi import operations_of
from libs.common.http.openapi_schemas import nodes

DOCUMENT: dict[str, Any] = json.loads((reference.PAGES / "openapi.json").read_text(encoding="utf-8"))
MOST_BYTES = 50_000


@pytest.mark.parametrize("file", [*reference.FILES, *codes.FILES], ids=lambda file: file.name)
def test_a_generated_file_is_what_the_code_says(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == documents.wanted()[file](), "run: python -m deploy.cli.documents"


def test_every_code_of_a_refusal_has_its_advice_and_no_other_has() -> None:
    written = codes.advice()
    callers, others = {*written["callers"]}, {*written["others"]}
    declared = {*codes.declared()}
    assert not callers & others
    assert declared - callers - others == {code for code in declared if code.endswith(codes.ABSENT)} - callers - others
    assert (callers | others) <= declared, "advice about codes that there are no more"
    assert all(len(said) > 10 and said.endswith(".") for part in written.values() for said in part.values())


def test_a_code_is_found_wherever_it_is_raised() -> None:
    text = """
class CartwrightError(Exception): ...
class SulkingError(ConflictError):
    status = 418
    def __init__(self): super().__init__("product-sulks", "for today")
class ConflictError(CartwrightError):
    status = 409
def refuse(): raise ConflictError("cart-sulks", "as well")
"""
    assert codes.written_in({ROOT / "libs" / "sulking.py": text}) == [("product-sulks", 418), ("cart-sulks", 409)]


def test_the_one_document_shows_customers_what_is_theirs_and_names_each_operation_once() -> None:
    names = [operation["operationId"] for operation in operations_of(DOCUMENT)]
    assert len(names) == len(set(names)) > 90
    assert not [path for path in DOCUMENT["paths"] if path.startswith("/ops")]
    references = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    for name in references:
        kind, component = name.removeprefix("#/components/").split("/")
        assert component in DOCUMENT["components"][kind]


def test_whatever_takes_a_key_says_so_and_whatever_is_refused_has_a_schema() -> None:
    checkout = DOCUMENT["paths"]["/v1/checkouts"]["post"]
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in checkout["parameters"]
    assert {"$ref": "#/components/parameters/PreferWait"} in checkout["parameters"]
    assert {"ETag", "Location", "Idempotent-Replayed", "Preference-Applied"} <= {*checkout["responses"]["202"]["headers"]}
    put = DOCUMENT["paths"]["/v1/carts/{cart_id}/lines/{sku}"]["put"]
    assert {"$ref": "#/components/parameters/IfMatch"} in put["parameters"]
    for operation in operations_of(DOCUMENT):
        assert operation["summary"]
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
        if "x-idempotency-key" in operation:
            takes_key = {"$ref": "#/components/parameters/IdempotencyKey"} in operation.get("parameters", ())
            assert takes_key is (operation["x-idempotency-key"] == "required")


def test_what_answers_leave_out_is_not_required_and_times_and_states_are_told_as_such() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    order = schemas["Order"]
    assert "reason" not in order["required"]
    assert order["properties"]["reason"]["type"] == "string"
    assert order["properties"]["placed_at"]["format"] == "date-time"
    assert schemas["OrderState"]["enum"] == ["confirmed", "canceled"]
    page = schemas["OrderPage"]
    assert "next_cursor" in page["required"]
    assert {"type": "null"} in page["properties"]["next_cursor"]["anyOf"]
    untold = [
        f"{name}.{member}"
        for name, schema in schemas.items()
        for member, told in schema.get("properties", {}).items()
        if member.endswith("_at") and told.get("format") != "date-time" and "anyOf" not in told
    ]
    assert untold == []


def test_redocly_finds_nothing_wrong_with_the_document() -> None:
    done = shutil.which("redocly", path=_tools())
    if done is None:
        pytest.skip("not proven: the document is lint-clean (node with @redocly/cli on its NODE_PATH)")
    command = [done, "lint", "--format=json", str(reference.PAGES / "openapi.json")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert json.loads(said.stdout)["problems"] == []


def _tools() -> str:
    return ":".join(f"{folder}/.bin" for folder in os.environ.get("NODE_PATH", "").split(":") if folder)


def test_the_pages_are_small_and_load_nothing_from_anywhere_else() -> None:
    pages = [file for file in reference.PAGES.rglob("*") if file.is_file() and file.name != "openapi.json"]
    assert {"index.html", "errors.html"} <= {file.name for file in pages}
    assert sum(file.stat().st_size for file in pages) < MOST_BYTES
    for file in pages:
        text = file.read_text(encoding="utf-8")
        if file.suffix in {".html", ".js", ".css"}:
            foreign = re.findall(r"(?:https?:|src=.|href=.|url\(.?|from .)//[^\s\"';]*", text)
            assert {*foreign} <= {"http://localhost:8080"}, file.name
        if file.suffix == ".html":
            assert "<script>" not in text
            assert "style=" not in text
            assert "<style" not in text
