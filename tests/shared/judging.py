"""Answers held against the service's own OpenAPI document, so that every test of the edge is also one of the document."""

from functools import cached_property
from typing import Any

import orjson
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it says nothing of its types
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.processes.api import PublicApi

HEADERS = ("ETag", "Location", "Idempotent-Replayed", "Preference-Applied", "Retry-After")
"""Those of an answer that a client goes by."""
READABLE = frozenset({"application/json", "application/problem+json"})


class Judged:
    """An application whose every answer of a route is judged before its caller has it."""

    def __init__(self, app: ASGIApp, public: PublicApi) -> None:
        self._app, self._public = app, public
        self._validators: dict[tuple[str, str], Draft202012Validator] = {}

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self._public.openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told: list[Message] = []

        async def heard(message: Message) -> None:
            told.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._judge(scope, told)
            await send(message)

        await self._app(scope, receive, heard)

    def _judge(self, scope: Scope, told: list[Message]) -> None:
        route = scope.get("route")
        operation = self._document["paths"].get(getattr(route, "path_format", ""), {}).get(scope["method"].lower())
        if operation is None:
            return
        status = str(told[0]["status"])
        answer = self._followed(operation["responses"].get(status, operation["responses"]["default"]))
        place = f"{operation['operationId']} {status}"
        assert status in operation["responses"] or int(status) >= 400, f"{place} is not in the document"
        headers = {name.decode().lower(): value.decode() for name, value in told[0]["headers"]}
        unsaid = [name for name in HEADERS if name.lower() in headers and name not in answer.get("headers", {})]
        assert not unsaid, f"{place} has {unsaid}, which the document does not say"
        kind, body = headers.get("content-type", "").partition(";")[0], b"".join(each.get("body", b"") for each in told[1:])
        if kind not in READABLE or not body:
            return
        content = answer.get("content", {})
        assert kind in content, f"{place} is {kind}, which the document does not say"
        errors = [error.message for error in self._validator(place, kind, content[kind]).iter_errors(orjson.loads(body))]
        assert not errors, f"{place}: {errors[:3]}"

    def _validator(self, place: str, kind: str, content: dict[str, Any]) -> Draft202012Validator:
        key = place, kind
        if key not in self._validators:
            schema = {**content.get("schema", {}), "components": self._document["components"]}
            self._validators[key] = Draft202012Validator(schema)
        return self._validators[key]

    def _followed(self, answer: dict[str, Any]) -> dict[str, Any]:
        name = answer.get("$ref", "").removeprefix("#/components/responses/")
        found: dict[str, Any] = self._document["components"]["responses"][name] if name else answer
        return found
