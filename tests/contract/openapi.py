"""Stripe's published OpenAPI, as it comes with `stripe-mock`, made into something that refuses what Stripe does not say."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

MODULE = "github.com/stripe/stripe-mock"
VERSION = "v0.203.0"


def installed(cache: Path) -> Path:
    """Install stripe-mock below `cache` unless it is there, and return its binary."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: stripe-mock, which carries Stripe's OpenAPI, cannot be built")
    binary = cache / VERSION / "stripe-mock"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            environment = os.environ | {"GOBIN": str(binary.parent), "GOFLAGS": "-mod=mod"}
            subprocess.run([go, "install", f"{MODULE}@{VERSION}"], env=environment, check=True, timeout=280, capture_output=True)
    return binary


def specification() -> dict[str, Any]:
    """Read the OpenAPI document out of the module that was built."""
    modules = subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip()
    file = Path(modules) / f"{MODULE}@{VERSION}" / "embedded" / "openapi" / "spec3.json"
    document: dict[str, Any] = json.loads(file.read_text())
    return document


class Contract:
    """Which answer Stripe gives to which request."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = {_shape(path): operations for path, operations in document["paths"].items()}
        self._components = _strict(document["components"])

    def check(self, method: str, path: str, body: object) -> None:
        """Raise unless the body is what Stripe answers with 200 to this method and path (`/v1/refunds/{id}`)."""
        answers = self._paths[_shape(path)][method.lower()]["responses"]
        self._check(answers["200"]["content"]["application/json"]["schema"], body)

    def check_object(self, name: str, body: object) -> None:
        """Raise unless the body is one of Stripe's objects of this name."""
        self._check({"$ref": f"#/components/schemas/{name}"}, body)

    def _check(self, schema: dict[str, Any], body: object) -> None:
        whole = {**_strict(schema), "components": self._components}
        error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(whole).iter_errors(body))
        if error is not None:
            where = "/".join(map(str, error.absolute_path))
            raise AssertionError(f"at {where or 'the top'}: {error.message[:300]}")


def _shape(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def _strict(node: Any) -> Any:
    """Turn OpenAPI's `nullable` into JSON Schema, and let no object have members that Stripe does not name."""
    if isinstance(node, list):
        return [_strict(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    made = {name: _strict(value) for name, value in node.items() if name != "nullable"}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if "$ref" in made and len(made) > 1:
        made = {"allOf": [{"$ref": made["$ref"]}]}
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made
