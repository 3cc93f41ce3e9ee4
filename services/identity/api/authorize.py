"""The authorization endpoint (RFC 6749 §4.1) for browser applications: code and PKCE alone, and a page to sign in on.

RFC 9700: an application is answered where it is registered, compared as text; no implicit, no password grant; every answer
names the issuer (RFC 9207). Until client and address are known to belong together nobody is sent anywhere.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode
from uuid import UUID

from fastapi import Response

from libs.common.clock import new_id
from libs.common.errors import MalformedError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api import second_step
from services.identity.api.desk import Desk
from services.identity.api.issuer import Issuer
from services.identity.api.member_tokens import new_code
from services.identity.api.oauth import FORM, MAX_FIELDS, UNCACHED, Form, form_of
from services.identity.api.pages import sign_in_page
from services.identity.domain.client import Client, tenant_of
from services.identity.domain.console import console
from services.identity.domain.member import Member, email_key
from services.identity.domain.second_factor import Shown
from services.identity.domain.sign_in import CHALLENGE, digest_of, is_redirect

ROUTES = Routes(Facing.CUSTOMERS)
ROUTE = "/oauth/authorize"
ASKED = ("response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method")
MAX_LENGTH = 2_000
_NEEDED = frozenset({"response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method"})
IN_QUERY = {
    "parameters": [{"name": name, "in": "query", "required": name in _NEEDED, "schema": {"type": "string"}} for name in ASKED]
}
_FIELDS = {name: {"type": "string"} for name in (*ASKED, "email", "password", "ticket", "code")}
IN_A_FORM = {"requestBody": {"required": True, "content": {FORM: {"schema": {"type": "object", "properties": _FIELDS}}}}}
PAGES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page to sign in on", "content": {"text/html": {"schema": {"type": "string"}}}},
    303: {"description": "Back to the application, with a code or an error"},
}
SCOPE = re.compile(r"[a-z:-]+(?: [a-z:-]+)*")
WRONG = "The e-mail address or the password is not right."
LATER = "Too many tries from here. Wait a minute, then try again."


@dataclass(frozen=True, slots=True)
class Asked:
    """What an application asks for, of whom it is known that it is answered there."""

    tenant_id: UUID
    tenant: str
    client: Client
    fields: Mapping[str, str]
    is_required: bool
    """Whether a member must show a second factor."""

    @property
    def redirect_uri(self) -> str:
        """Where it is answered."""
        return self.fields["redirect_uri"]

    @property
    def place(self) -> second_step.Place:
        """The same, for the second step."""
        return second_step.Place(
            tenant_id=self.tenant_id,
            tenant=self.tenant,
            client_id=self.client.id,
            fields=self.fields,
            redirect_uri=self.redirect_uri,
            is_required=self.is_required,
        )

    def fault(self) -> tuple[str, str] | None:
        """What is wrong with it, as RFC 6749 §4.1.2.1 has it."""
        if self.fields.get("response_type") != "code":
            return "unsupported_response_type", "response_type is code"
        if self.fields.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(self.fields.get("code_challenge", "")):
            return "invalid_request", "PKCE is needed: a code_challenge, and S256 as code_challenge_method"
        if not SCOPE.fullmatch(self.fields.get("scope", "a")) or not set(self.scopes) <= set(self.client.scopes):
            return "invalid_scope", "this client may ask for less"
        return None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What is asked for; nothing named is all that the client may."""
        return tuple(sorted(set(self.fields.get("scope", "").split())))


async def _asked(call: Call, form: Form) -> Asked:
    """Who asks, and where they are answered. Raises MalformedError: nobody is sent to an address that is not known."""
    fields = {name: value for name in ASKED if (value := form.get(name)) is not None}
    client_id, redirect_uri = fields.get("client_id", ""), fields.get("redirect_uri", "")
    tenant_id = tenant_of(client_id)
    if tenant_id is None or not redirect_uri or max(map(len, fields.values())) > MAX_LENGTH:
        raise _unknown(call, tenant_id)
    async with call.shell.database.transaction([tenant_id]) as connection:
        clients = await repository.CLIENTS.load(connection, [(tenant_id, client_id)], lock=False)
        tenants = await repository.TENANTS.load(connection, [(tenant_id, tenant_id)], lock=False)
    client = console(tenant_id, client_id, call.service.shared(Desk).consoles) or (clients[0] if clients else None)
    if client is None or client.is_gone or not is_redirect(redirect_uri, client.redirect_uris):
        raise _unknown(call, tenant_id)
    if not tenants or not tenants[0].admits_clients:
        raise _unknown(call, tenant_id)
    return Asked(tenant_id, tenants[0].name, client, fields, tenants[0].requires_totp)


def _unknown(call: Call, tenant_id: UUID | None) -> MalformedError:
    call.service.rates.missed(call.address)
    refused(Refused.LOGIN, "unknown-application", call.request.scope, ROUTE, tenant_id=tenant_id)
    return MalformedError("unknown-application", "no application of this client_id is answered at this redirect_uri")


def _sent_back(call: Call, asked: Asked, **answer: str) -> Response:
    """Send the browser back to the application, with 303 so that no form goes along."""
    state = {"state": asked.fields["state"]} if "state" in asked.fields else {}
    query = urlencode({**answer, **state, "iss": call.service.shared(Issuer).address})
    joint = "&" if "?" in asked.redirect_uri else "?"
    headers = {"Location": f"{asked.redirect_uri}{joint}{query}", "Referrer-Policy": "no-referrer", **UNCACHED}
    return Response(status_code=303, headers=headers)


def _refused(call: Call, asked: Asked) -> Response | None:
    fault = asked.fault()
    return None if fault is None else _sent_back(call, asked, error=fault[0], error_description=fault[1])


@ROUTES.get(ROUTE, response_class=Response, responses=PAGES, openapi_extra=IN_QUERY)
@for_strangers
async def show_sign_in(call: Caller) -> Response:
    """Ask a member to sign in, for an application that is to act for them."""
    try:
        query = parse_qs(call.request.scope["query_string"].decode("ascii"), max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise MalformedError("invalid-request", "the query cannot be read") from error
    asked = await _asked(call, Form(query))
    return _refused(call, asked) or sign_in_page(asked.tenant, asked.fields, asked.redirect_uri)


@ROUTES.post(ROUTE, response_class=Response, responses=PAGES, openapi_extra=IN_A_FORM)
@for_strangers
async def sign_in(call: Caller) -> Response:
    """Let a member in who knows the password, and has their second factor; back they go to the application, with a code."""
    form = await form_of(call)
    asked = await _asked(call, form)
    if (refusal := _refused(call, asked)) is not None:
        return refusal
    if ticket := form.get("ticket"):
        judged = await second_step.judge(call, asked.place, ticket, form.get("code") or "")
        return judged if isinstance(judged, Response) else await _let_in(call, asked, judged.member, judged.shown)
    email = form.get("email") or ""
    if _must_wait(call, asked, email):
        page = sign_in_page(asked.tenant, asked.fields, asked.redirect_uri, email=email, wrong=LATER)
        page.status_code = 429
        return page
    member = await _known(call, asked, email, form.get("password") or "")
    if member is None:
        return sign_in_page(asked.tenant, asked.fields, asked.redirect_uri, email=email, wrong=WRONG)
    return await second_step.next_page(call, asked.place, member) or await _let_in(call, asked, member, None)


async def _let_in(call: Call, asked: Asked, member: Member, shown: Shown | None) -> Response:
    code_id = new_id()
    code = new_code(asked.tenant_id, code_id)
    command = handlers.IssueCode(
        code_id=code_id,
        digest=digest_of(code),
        member_id=member.id,
        client_id=asked.client.id,
        redirect_uri=asked.redirect_uri,
        challenge=asked.fields["code_challenge"],
        scopes=asked.scopes,
        password=member.password,
        shown=shown,
    )
    refusal = await second_step.let_in(call, asked.place, command, member)
    return refusal or _sent_back(call, asked, code=code)


def _account(asked: Asked, email: str) -> str:
    return f"{asked.tenant_id}:{email_key(email)}"


def _must_wait(call: Call, asked: Asked, email: str) -> bool:
    """Whoever was wrong too often waits: for this account at this address, so that nobody keeps its owner out from elsewhere."""
    return call.service.rates.wait_to_guess(_account(asked, email), call.address) > 0


async def _known(call: Call, asked: Asked, email: str, password: str) -> Member | None:
    """The member whose password this is. Nobody's, and that of somebody who may not come in, take as long as a wrong one."""
    async with call.shell.database.transaction([asked.tenant_id]) as connection:
        member = await repository.member_of(connection, asked.tenant_id, email_key(email))
    stored = member.password if member is not None and member.is_active else None
    is_right = await call.service.shared(Desk).passwords.matches(stored, unicodedata.normalize("NFC", password))
    call.service.rates.guessed(_account(asked, email), call.address, right=is_right)
    if is_right:
        return member
    reason = "unknown-member" if member is None else "wrong-password" if stored is not None else "member-not-active"
    subject = {} if member is None else {"subject": str(member.id)}
    refused(Refused.LOGIN, reason, call.request.scope, ROUTE, tenant_id=asked.tenant_id, **subject)
    return None
