"""What is ours and not Stripe's, under /_control: readiness, reset, faults, limits, the clock and what banks decide."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.fake_stripe import disputes, passing, refunds
from deploy.local.fake_stripe.connect import new_code
from deploy.local.fake_stripe.currencies import CURRENCIES
from deploy.local.fake_stripe.delivery import KnobError, Knobs, read_knobs
from deploy.local.fake_stripe.endpoints.account import new_secret
from deploy.local.fake_stripe.endpoints.call import Call, View, new_id
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.faults import Plan, PlanError, read_plan
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.limits import Limiter, LimitError, Rates, read_rates
from deploy.local.fake_stripe.objects.telling import DEFAULT_VERSION, endpoint_object
from deploy.local.fake_stripe.page import authenticate, find_intent
from deploy.local.fake_stripe.records import Change, Charge, DisputeStatus, RefundStatus, Settlement, Status, WebhookEndpoint

if TYPE_CHECKING:
    from deploy.local.fake_stripe.accounts import Account
    from deploy.local.fake_stripe.books import Books
    from deploy.local.fake_stripe.fake import Fake
    from deploy.local.fake_stripe.shelf import Shelf, Thing

Asked = dict[str, Any]
_RATE = re.compile(r"(?=.*[1-9])[0-9]{1,6}([.][0-9]{1,9})?")
Verb = Callable[["Control", Request, Asked], object]


class ControlError(ValueError):
    """A control request that cannot be carried out; the message says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """The control verbs of one fake; each takes the request and its JSON, and returns what to answer."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def readyz(self, _: Request, __: Asked) -> object:
        """Tell that it serves."""
        return {"status": "ready"}

    def reset(self, _: Request, __: Asked) -> object:
        """Forget everything, in memory and on disk."""
        self._fake.books.clear()
        self._fake.sender.forget()
        self._fake.sender.knobs = Knobs()
        self._fake.plan = Plan()
        self._fake.limiter = Limiter(Rates(), self._fake.limiter.clock)
        return {"status": "empty"}

    def faults(self, request: Request, asked: Asked) -> object:
        """Show, set or lift the fault plan."""
        if request.method == "PUT":
            self._fake.plan = read_plan(asked.get("rules"))
        elif request.method == "DELETE":
            self._fake.plan = Plan()
        return self._fake.plan.view()

    def limits(self, request: Request, asked: Asked) -> object:
        """Show, set or lift the rate limits."""
        if request.method != "GET":
            rates = read_rates(asked) if request.method == "PUT" else Rates()
            self._fake.limiter = Limiter(rates, self._fake.limiter.clock)
        return self._fake.limiter.rates.view()

    def clock(self, request: Request, asked: Asked) -> object:
        """Show the fake's time or put it forward, with all that this brings."""
        books = self._fake.books
        if request.method == "POST":
            seconds = asked.get("advance_seconds")
            if not isinstance(seconds, int) or seconds < 0:
                raise ControlError("advance_seconds is a whole number of seconds, not below 0")
            books.advance(seconds)
            passing.pass_time(books, self._fake.now())
        return {"now": self._fake.now(), "ahead_seconds": books.ahead_seconds}

    def ledger(self, request: Request, _: Asked) -> object:
        """Sum up the money by a metadata entry."""
        return _summary(self._fake.books, request.query_params.get("by", "tenant_id"))

    def authentication(self, request: Request, asked: Asked) -> object:
        """End a 3-D Secure challenge without its page."""
        if asked.get("outcome") not in {"succeed", "fail"}:
            raise ControlError("outcome is succeed or fail")
        found = find_intent(self._fake, request.path_params["id"])
        if found is None:
            raise ControlError("there is no such payment intent", 404)
        authenticate(self._fake, *found, passed=asked["outcome"] == "succeed")
        return self._seen(found[0], found[0].intents.get(found[1].id))

    def connect(self, _: Request, asked: Asked) -> object:
        """Let an account say that the platform may act for it."""
        account, code = new_code(self._fake, asked.get("account"))
        return {"account": account, "code": code}

    def refund(self, request: Request, asked: Asked) -> object:
        """Let the bank decide about a refund."""
        account, refund = self._find(lambda account: account.refunds, request.path_params["id"])
        failure = asked.get("failure_reason")
        if failure not in {None, *refunds.FAILURES}:
            raise ControlError(f"failure_reason is one of {', '.join(refunds.FAILURES)}")
        to = _one_of(RefundStatus, asked.get("status"))
        now, charge = self._fake.now(), account.charges.get(refund.charge)
        change = refunds.end(refund, charge, to, now=now, new_id=new_id, failure=failure)
        self._record(account, change)
        return self._seen(account, account.refunds.get(refund.id))

    def open_dispute(self, _: Request, asked: Asked) -> object:
        """Let a cardholder dispute a charge, whatever card paid it."""
        account, charge = self._charge(asked)
        reason = asked.get("reason", "fraudulent")
        amount = asked.get("amount")
        if reason not in disputes.REASONS:
            raise ControlError(f"reason is one of {', '.join(disputes.REASONS)}")
        if amount is not None and not (isinstance(amount, int) and 0 < amount <= charge.amount_captured):
            raise ControlError("amount is a whole number up to what was captured")
        if not charge.amount_captured:
            raise ControlError("only a captured charge can be disputed")
        inquiry = bool(asked.get("inquiry", False))
        change = disputes.opened(charge, reason, inquiry=inquiry, amount=amount, now=self._fake.now(), new_id=new_id)
        self._record(account, change)
        return self._seen(account, change.disputes[0])

    def dispute(self, request: Request, asked: Asked) -> object:
        """Let the issuer move a dispute on."""
        account, dispute = self._find(lambda account: account.disputes, request.path_params["id"])
        to = _one_of(DisputeStatus, asked.get("status"))
        self._record(account, disputes.moved(dispute, to, now=self._fake.now(), new_id=new_id))
        return self._seen(account, account.disputes.get(dispute.id))

    def settlement(self, request: Request, asked: Asked) -> object:
        """Show, set or lift the currency in which an account is settled, with what others are worth in it."""
        account = self._account(request, asked)
        if request.method != "GET":
            wanted = read_settlement(asked) if request.method == "PUT" else None
            self._fake.books.settle_in(account, wanted)
        return account.settlement or {}

    def webhooks(self, request: Request, asked: Asked) -> object:
        """Show how the sending goes; set or lift the template endpoint of an account, and the sender's patience."""
        sender = self._fake.sender
        if request.method == "PUT":
            sender.knobs = read_knobs(asked, sender.knobs)
            if "url" in asked:
                self._put_template(self._account(request, asked), asked)
        elif request.method == "DELETE":
            account = self._account(request, asked)
            for endpoint in [endpoint for endpoint in account.endpoints if endpoint.template]:
                self._record(account, Change(endpoint=replace(endpoint, deleted=True)))
        rows = [
            {"account": account.name, "template": endpoint.template, **endpoint_object(endpoint)}
            for account in self._fake.books.accounts()
            for endpoint in account.endpoints
        ]
        return sender.view() | {"endpoints": rows}

    def hurry(self, _: Request, __: Asked) -> object:
        """Make every waiting delivery due now."""
        self._fake.sender.hurry()
        return self._fake.sender.view()

    def roll(self, request: Request, asked: Asked) -> object:
        """Give an endpoint a new secret; the old one signs too for a while (24 hours unless told)."""
        account, endpoint = self._find(lambda account: account.endpoints, request.path_params["id"])
        seconds = int(asked.get("expires_in_seconds", 24 * 3600))
        secrets = (str(asked.get("secret") or new_secret()), endpoint.secrets[0])
        rolled = replace(endpoint, secrets=secrets, old_until=self._fake.now() + seconds)
        self._record(account, Change(endpoint=rolled))
        return endpoint_object(rolled, with_secret=True)

    def resend(self, request: Request, _: Asked) -> object:
        """Send an event again to every endpoint that wants its type, as a person at the dashboard can."""
        for account in self._fake.books.accounts():
            if (event := account.events.find(request.path_params["id"])) is not None:
                for endpoint in self._fake.books.told(account):
                    self._fake.books.owe(account, event, endpoint)
                return self._fake.sender.view()
        raise ControlError("there is no such event", 404)

    def _put_template(self, account: Account, asked: Asked) -> None:
        secrets = asked.get("secrets") or [asked.get("secret") or new_secret()]
        before = next((endpoint for endpoint in account.endpoints if endpoint.template), None)
        if not str(asked["url"]).startswith(("http://", "https://")):
            raise ControlError("url begins with http:// or https://")
        endpoint = WebhookEndpoint(
            id=before.id if before else new_id("we"),
            url=str(asked["url"]),
            secrets=tuple(str(secret) for secret in secrets),
            enabled_events=tuple(str(kind) for kind in asked.get("enabled_events") or ["*"]),
            created=before.created if before else self._fake.now(),
            api_version=asked.get("api_version"),
            template=True,
        )
        if endpoint != before:
            self._record(account, Change(endpoint=endpoint))

    def _account(self, request: Request, asked: Asked) -> Account:
        """Return the account a control request is about: `api_key` (and `connected`), or the key it came with."""
        key = asked.get("api_key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if not key:
            raise ControlError("say whose webhooks: api_key, or the key as Authorization: Bearer")
        return self._fake.books.account(str(key), str(asked.get("connected", "")))

    def _charge(self, asked: Asked) -> tuple[Account, Charge]:
        for account in self._fake.books.accounts():
            intent = account.intents.find(asked.get("payment_intent"))
            charge = account.charges.find(asked.get("charge")) or (account.charge_of(intent) if intent else None)
            if charge is not None:
                return account, charge
        raise ControlError("there is no such charge: give charge or payment_intent", 404)

    def _find(self, shelf_of: Callable[[Account], Shelf[Any]], object_id: str) -> tuple[Account, Any]:
        for account in self._fake.books.accounts():
            if (found := shelf_of(account).find(object_id)) is not None:
                return account, found
        raise ControlError(f"there is no {object_id}", 404)

    def _record(self, account: Account, change: Change) -> None:
        self._fake.books.record(account, change, None, at=self._fake.now())

    def _seen(self, account: Account, thing: Thing) -> object:
        return View(Call(account, "", Form({}), self._fake.now(), DEFAULT_VERSION)).render(thing)


def read_settlement(asked: Asked) -> Settlement:
    """Read `{"currency": "gbp", "rates": {"usd": "0.78"}}`: rates in text, so that none is rounded on the way."""
    rates = asked.get("rates", {})
    names = {asked.get("currency"), *rates} if isinstance(rates, dict) else {None}
    if not names <= CURRENCIES or not all(isinstance(rate, str) and _RATE.fullmatch(rate) for rate in rates.values()):
        raise ControlError('a settlement is {"currency": "gbp", "rates": {"usd": "0.78"}}, with rates above 0 in text')
    return Settlement(asked["currency"], rates)


_VERBS: Mapping[str, tuple[tuple[str, ...], Verb]] = {
    "readyz": (("GET",), Control.readyz),
    "reset": (("POST",), Control.reset),
    "faults": (("GET", "PUT", "DELETE"), Control.faults),
    "limits": (("GET", "PUT", "DELETE"), Control.limits),
    "clock": (("GET", "POST"), Control.clock),
    "ledger": (("GET",), Control.ledger),
    "payment_intents/{id}/authentication": (("POST",), Control.authentication),
    "refunds/{id}": (("POST",), Control.refund),
    "connections": (("POST",), Control.connect),
    "disputes": (("POST",), Control.open_dispute),
    "disputes/{id}": (("POST",), Control.dispute),
    "settlement": (("GET", "PUT", "DELETE"), Control.settlement),
    "webhooks": (("GET", "PUT", "DELETE"), Control.webhooks),
    "webhooks/hurry": (("POST",), Control.hurry),
    "webhook_endpoints/{id}/roll": (("POST",), Control.roll),
    "events/{id}/resend": (("POST",), Control.resend),
}


def routes(fake: Fake) -> list[Route]:
    """Return the control routes of one fake."""
    control = Control(fake)
    return [
        Route(f"/_control/{path}", _serving(control, verb), methods=list(methods)) for path, (methods, verb) in _VERBS.items()
    ]


def _serving(control: Control, verb: Verb) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            return _json(verb(control, request, _asked(await request.body())))
        except ControlError as error:
            return _json({"error": str(error)}, error.status)
        except (PlanError, LimitError, KnobError, StripeError, orjson.JSONDecodeError) as error:
            return _json({"error": str(error)}, 400)

    return serve


def _asked(body: bytes) -> Asked:
    """Read the JSON of a control request; a bare list is a fault plan's rules."""
    document = orjson.loads(body) if body else {}
    if isinstance(document, list):
        return {"rules": document}
    if not isinstance(document, dict):
        raise ControlError("a control request is a JSON object")
    return document


def _one_of(kind: type[RefundStatus | DisputeStatus], value: object) -> Any:
    try:
        return kind(str(value))
    except ValueError as error:
        raise ControlError(f"status is one of {', '.join(kind)}") from error


def _summary(books: Books, name: str) -> dict[str, Any]:
    """Sum every account's intents, refunds and disputes by the metadata entry `name` and currency."""
    rows: defaultdict[tuple[str, str, str], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int, _NOTHING))
    for account in books.accounts():
        for intent in account.intents:
            row = rows[account.name, intent.metadata.get(name, ""), intent.currency]
            row["intents"] += 1
            if intent.status is Status.REQUIRES_CAPTURE:
                row["held_count"] += 1
                row["held_minor"] += intent.amount_capturable
            if intent.amount_received:
                row["captured_count"] += 1
                row["captured_minor"] += intent.amount_received
        for charge in account.charges:
            row = rows[account.name, account.metadata_of(charge).get(name, ""), charge.currency]
            row["refunded_minor"] += charge.amount_refunded
        for transaction in account.transactions:
            if transaction.type != "adjustment":
                continue
            case = account.disputes.get(transaction.source)
            row = rows[account.name, account.metadata_of(case).get(name, ""), case.currency]
            row["disputed_minor"] += case.amount if transaction.amount < 0 else -case.amount
    return {
        "by": name,
        "rows": [
            {"account": account, name: value, "currency": currency, **sums}
            for (account, value, currency), sums in sorted(rows.items())
        ],
    }


_NOTHING = {
    "intents": 0,
    "held_count": 0,
    "held_minor": 0,
    "captured_count": 0,
    "captured_minor": 0,
    "refunded_minor": 0,
    "disputed_minor": 0,
}


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
