"""The parts that the documents of all services share: what every caller sends, and what every refusal looks like."""

from typing import Any, Final

from libs.common.http.titles import MEDIA_TYPE, TITLES

LICENSE: Final = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
ABOUT: Final = (
    "Times are RFC 3339 in UTC, money is an integer in minor units beside one ISO 4217 `currency`, and a member without a value "
    "is left out. Every answer has an `X-Request-Id`. A caller must expect values of a state that it does not know."
)
SECURITY: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "at+jwt",
        "description": "An access token. Beside an operation stand the permissions, of which its `scope` must have one.",
    },
    "client": {"type": "http", "scheme": "basic", "description": "A client's id and secret, or an API key as the user name."},
}
_TEXT: Final = {"type": "string"}
ETAG: Final = {"$ref": "#/components/headers/ETag"}
HEADERS: Final[dict[str, Any]] = {
    "ETag": {"description": "The version, for `If-Match` and `If-None-Match`", "schema": _TEXT, "example": '"7"'},
    "Location": {"description": "Where it is to be found", "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotent-Replayed": {
        "description": "There if this key was used before for the same request, which was not carried out again",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {"description": "How long was waited at most", "schema": _TEXT, "example": "wait=10"},
    "Retry-After": {"description": "Seconds after which to try again", "schema": {"type": "integer", "minimum": 0}},
    "X-Request-Id": {"description": "For the logs: the caller's, or one of ours", "schema": _TEXT},
    "WWW-Authenticate": {"description": "What a token must be like (RFC 6750)", "schema": _TEXT},
}


def _header(name: str, description: str, example: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    told = {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}, "example": example}
    return {**told, "required": True} if required else told


PARAMETERS: Final[dict[str, Any]] = {
    "IdempotencyKey": _header(
        "Idempotency-Key",
        "Of the caller's making, one for one intention: sent again with the same body, nothing happens twice. Kept for 72 hours.",
        "0190b3c8-0000-7000-8000-000000000001",
        required=True,
        minLength=1,
        maxLength=255,
    ),
    "PreferWait": _header(
        "Prefer", "`wait=N`: answer once it is over, or after N seconds, at most 30", "wait=10", pattern="^.*wait=[0-9]+.*$"
    ),
    "PreferReturn": _header(
        "Prefer", "`return=minimal`: answered 204; `return=representation`: with the whole", "return=minimal"
    ),
    "IfMatch": _header("If-Match", "Do it to this version alone, as its `ETag` has it; else 412", '"7"'),
    "IfNoneMatch": _header("If-None-Match", "Answer 304 if this is the version still", '"7"'),
}

BY_STATUS: Final[dict[str, str]] = {
    "400": "Malformed",
    "401": "Unauthenticated",
    "403": "Denied",
    "404": "NotFound",
    "409": "Conflict",
    "412": "Stale",
    "413": "TooLarge",
    "415": "UnsupportedMediaType",
    "422": "Rejected",
    "429": "RateLimited",
    "503": "Unavailable",
}
"""The component that tells of a refusal, by its status."""

SCHEMAS: Final[dict[str, Any]] = {
    "Problem": {
        "type": "object",
        "title": "Problem",
        "description": "Why nothing was done (RFC 9457). `code` is for programs, and never changed. Some have more members.",
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "examples": ["urn:cartwright:problem:schema"]},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "instance": _TEXT,
            "code": {"type": "string", "examples": ["schema"]},
            "request_id": _TEXT,
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
        },
        "additionalProperties": True,
    },
    "Fault": {
        "type": "object",
        "title": "Fault",
        "description": "One thing that is wrong with a request, and where in it (RFC 6901).",
        "required": ["pointer", "detail"],
        "properties": {"pointer": _TEXT, "detail": _TEXT},
    },
}


def _refusal(status: int | None) -> dict[str, Any]:
    names = ["X-Request-Id"]
    names += ["Retry-After"] if status in {409, 429, 503} else []
    names += ["WWW-Authenticate"] if status in {401, 403} else []
    return {
        "description": "Anything else that was refused" if status is None else TITLES[status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


RESPONSES: Final[dict[str, Any]] = {
    **{name: _refusal(int(status)) for status, name in BY_STATUS.items()},
    "Problem": _refusal(None),
}
