"""What the gateway answers by itself, as the services do: `application/problem+json` with codes of ours."""

from typing import Any, Final

from libs.common.http.titles import MEDIA_TYPE, TITLES

_SAID: Final = {
    400: ("bad-request", "this is no request that two readers would read alike"),
    401: ("invalid-token", "the token is not one of ours"),
    404: ("not-found", "there is nothing here for you"),
    405: ("method-not-allowed", "Method Not Allowed"),
    408: ("request-timeout", "the request did not arrive in time"),
    413: ("body-too-large", "a body may have 2000000 bytes as it is sent"),
    429: ("rate-limited", "too many of one address; wait for Retry-After seconds"),
    431: ("headers-too-large", "a request's head may have 100 headers and 32768 bytes"),
    501: ("transfer-coding", "the one transfer coding here is chunked"),
}
_AWAY: Final = ("dependency-unavailable", "something this needs does not answer; try again shortly")
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-request-id": "%REQ(X-REQUEST-ID)%",
}


def mapping() -> dict[str, Any]:
    """What is answered instead of Envoy's own words, the first that fits."""
    return {"mappers": [*(_mapper("EQ", status, *said) for status, said in _SAID.items()), _mapper("GE", 500, *_AWAY)]}


def _mapper(operator: str, status: int, code: str, detail: str) -> dict[str, Any]:
    told = 503 if operator == "GE" else status
    body = {
        "type": f"urn:cartwright:problem:{code}",
        "title": TITLES[told],
        "status": told,
        "detail": detail,
        "instance": "%PATH(NQ:PATH)%",
        "code": code,
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    headers = _HEADERS | ({"retry-after": "1"} if operator == "GE" else {})
    headers |= {"www-authenticate": 'Bearer error="invalid_token"'} if status == 401 else {}
    compared = {"op": operator, "value": {"default_value": status, "runtime_key": f"gateway.refusal.{status}"}}
    return {
        "filter": {"status_code_filter": {"comparison": compared}},
        "status_code": told,
        "body_format_override": {"content_type": MEDIA_TYPE, "json_format": body},
        "headers_to_add": [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in headers.items()
        ],
    }
