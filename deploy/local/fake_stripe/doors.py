"""Who may knock: this machine's own programs. A page in its browser may not, whatever name it gives this address."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_OURS = "/_control"


class Doors:
    """Refuses names that are not ours (DNS rebinding), and under /_control whatever another site's page sends."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        """`hosts`: the names besides this machine's own under which it is to be reached."""
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it in, or answer 403."""
        reason = self._refusal(scope)
        if reason is None:
            await self._app(scope, receive, send)
            return
        body = orjson.dumps({"error": {"type": "invalid_request_error", "message": reason}})
        await Response(body, 403, media_type="application/json")(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return "this is the fake Stripe of 127.0.0.1 and localhost, and of no other Host (--allow-host)"
        path = scope["path"]
        if path != _OURS and not path.startswith(f"{_OURS}/"):
            return None
        for name in ("origin", "referer"):
            if any(urlsplit(value).netloc.lower() != hosts[0].lower() for value in headers.getlist(name)):
                return f"{_OURS} is for no page of another site"
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return f"{_OURS} is for no page of another site"
        return None


def _name(host: str) -> str | None:
    """The host without its port; None for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
