"""The schemas of a document as answers have them: what is None is left out, and a name is what the thing is called."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

SCHEMAS: Final = "#/components/schemas/"
NULL: Final = {"type": "null"}
TOLD_AS_NULL: Final = "x-told-as-null"
"""Marks a member that is there though it has no value."""


def told(made: dict[str, Any]) -> dict[str, Any]:
    """Take null out of what answers alone are made of, and what may be left out of what they always have."""
    schemas = made["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    sent = set[str]()
    for operations in made.get("paths", {}).values():
        for operation in operations.values():
            _reach(schemas, [operation.get("requestBody"), operation.get("parameters")], sent)
    for name, schema in schemas.items():
        if name not in sent and "properties" in schema:
            _leave_out(schema)
    return made


def _leave_out(schema: dict[str, Any]) -> None:
    for name, member in schema["properties"].items():
        choices = member.get("anyOf", ())
        if NULL not in choices or member.pop(TOLD_AS_NULL, False):
            continue
        left = [choice for choice in choices if choice != NULL]
        del member["anyOf"]
        member.update(left[0] if len(left) == 1 else {"anyOf": left})
        if member.get("default", NULL) is None:
            del member["default"]
        schema["required"] = [each for each in schema.get("required", ()) if each != name]
    if not schema.get("required", True):
        del schema["required"]


def renamed(made: dict[str, Any]) -> dict[str, Any]:
    """Call a `Page_OrderModel_` an `OrderPage`, and an `OrderModel` an `Order` unless something else is called so."""
    names = list(made["components"]["schemas"])
    wanted = {name: re.sub(r"^Page_(.+)_$", r"\1Page", name).replace("Model", "") for name in names}
    changes = {name: new for name, new in wanted.items() if [*wanted.values()].count(new) == 1}
    return with_names(made, changes)


def with_names(made: dict[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """The same document with other names of schemas. A title that only repeats a name goes."""
    schemas = made["components"]["schemas"]
    made["components"]["schemas"] = {changes.get(name, name): schemas[name] for name in schemas}
    for schema in made["components"]["schemas"].values():
        schema.pop("title", None)
    for node in nodes(made):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(SCHEMAS):
            name = reference.removeprefix(SCHEMAS)
            node["$ref"] = SCHEMAS + changes.get(name, name)
    return made


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document, however deep."""
    ahead = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, dict):
            yield node
            ahead += node.values()
        elif isinstance(node, list):
            ahead += node


def _reach(schemas: Mapping[str, Any], tree: Any, found: set[str]) -> None:
    for node in nodes(tree):
        name = str(node.get("$ref", "")).removeprefix(SCHEMAS)
        if name in schemas and name not in found:
            found.add(name)
            _reach(schemas, schemas[name], found)
