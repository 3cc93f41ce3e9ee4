"""Stripe, behind the gateway's Protocol. The SDK is loaded here and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

import stripe
from aiohttp import ClientTimeout, TCPConnector

from libs.common.clock import now
from services.payments.domain.provider.account import LIVE, TEST, UNLIMITED, SeenAccount
from services.payments.domain.provider.outcome import (
    Declined,
    Outcome,
    Rejected,
    SeenDispute,
    SeenIntent,
    SeenRefund,
    SeenTransaction,
    Throttled,
    Unknown,
)
from services.payments.gateway import reading
from services.payments.gateway.accounts import Credentials
from services.payments.gateway.limits import Guard
from services.payments.gateway.protocol import GatewayUnavailableError
from services.payments.gateway.reading import is_live
from services.payments.gateway.way import proxy_to, trusted

if TYPE_CHECKING:
    from stripe.params import (
        PaymentIntentCaptureParams,
        PaymentIntentConfirmParams,
        PaymentIntentCreateParams,
        RefundCreateParams,
    )
    from stripe.params import PaymentIntentCreateParamsPaymentMethodOptions as _Options

    from services.payments.domain.provider.account import Limits
    from services.payments.gateway.limits import Buckets
    from services.payments.gateway.protocol import Capture, Confirmation

STRIPE_HOST, CONNECT_BASE = "api.stripe.com", "https://connect.stripe.com"
_INTENTS, _REFUNDS, _DISPUTES = "/v1/payment_intents", "/v1/refunds", "/v1/disputes"
_TRANSACTIONS = "/v1/balance_transactions"
_WITH_CHARGE = ["latest_charge"]
_WITH_FEE = ["latest_charge.balance_transaction"]
_WITH_MONEY = ["balance_transaction", "failure_balance_transaction"]
_DEFINITE = frozenset({400, 401, 403, 404})
_SEVERAL_CAPTURES: _Options = {"card": {"request_multicapture": "if_available"}}
"""Stripe keeps what a capture leaves (`final_capture=false`) only where this was asked for when the payment was made."""
_CHALLENGED: _Options = {"card": {"request_multicapture": "if_available", "request_three_d_secure": "any"}}
_PAGE = 100
_SKEW = timedelta(minutes=5)
"""How far Stripe's clock and ours may differ, where a list begins at a time of ours."""
_FIRST_WINDOWS = (timedelta(minutes=10), timedelta(hours=1))

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]
Failure: TypeAlias = Declined | Rejected | Unknown | Throttled


class Stripe:
    """The connections to one address of Stripe's API, for as many accounts as there are.

    Ask it for clients, and `close` it, in one running event loop.
    """

    def __init__(self, api_base: str, *, timeout_seconds: float = 10.0) -> None:
        """`api_base` has no `/v1`."""
        stripe.enable_telemetry = False  # otherwise each call reports the duration of the one before
        self.api_base = api_base
        self._timeout = ClientTimeout(total=timeout_seconds)
        self._transport: stripe.AIOHTTPClient | None = None

    @property
    def transport(self) -> stripe.AIOHTTPClient:
        """The connections, made when they are first wanted.

        How many there may be is for those who call to bound: one that waited here for a connection until its time was up
        would pass for one that was sent.
        """
        if self._transport is None:
            connector = TCPConnector(limit=0, ssl=trusted(stripe.ca_bundle_path))
            self._transport = stripe.AIOHTTPClient(self._timeout, connector=connector, proxy=proxy_to(self.api_base))
        return self._transport

    def default_limits(self, credentials: Credentials) -> Limits:
        """What Stripe documents for the key's mode; any other address is a fake, which has its own."""
        if urlsplit(self.api_base).hostname != STRIPE_HOST:
            return UNLIMITED
        return LIVE if is_live(credentials.api_key) else TEST

    def client(self, credentials: Credentials, guard: Guard, share: Buckets | None = None) -> StripeGateway:
        """A client for one account, on these connections."""
        return StripeGateway._on(self, credentials, guard, share)  # noqa: SLF001 - two classes, one module

    def authorize_url(self, client_id: str, state: str) -> str:
        """Stripe's page for it; the platform's settings there say where it leads back to."""
        asked = {"response_type": "code", "client_id": client_id, "scope": "read_write", "state": state}
        return f"{self.connect_base}/oauth/authorize?{urlencode(asked)}"

    async def exchange(self, credentials: Credentials, code: str) -> SeenAccount | Rejected | Unknown | Throttled:
        """Exchange the code, once and without a retry: Stripe takes no code a second time."""
        gateway = self.client(credentials, Guard("connect", self.default_limits(credentials)))
        return await gateway._exchange(code)  # noqa: SLF001 - two classes, one module

    @property
    def connect_base(self) -> str:
        """Where accounts are connected: Stripe has an address of its own for that."""
        return CONNECT_BASE if urlsplit(self.api_base).hostname == STRIPE_HOST else self.api_base

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._transport is not None:
            await self._transport.close_async()  # type: ignore[no-untyped-call] # the SDK leaves it untyped


class StripeGateway:
    """One account at Stripe, through the official SDK on aiohttp, which costs a sixth of its default transport in CPU."""

    def __init__(self, api_key: str, api_base: str, *, timeout_seconds: float = 10.0) -> None:
        """A client with connections and limits of its own: `close` it."""
        provider = Stripe(api_base, timeout_seconds=timeout_seconds)
        credentials = Credentials(api_key)
        self._connect(provider, credentials, Guard("own", provider.default_limits(credentials)), None)

    @classmethod
    def _on(cls, provider: Stripe, credentials: Credentials, guard: Guard, share: Buckets | None) -> StripeGateway:
        gateway = cls.__new__(cls)
        gateway._connect(provider, credentials, guard, share)  # noqa: SLF001 - its own
        return gateway

    def _connect(self, provider: Stripe, credentials: Credentials, guard: Guard, share: Buckets | None) -> None:
        """Retries are set to none, in words: a retry belongs to the operation log, which wrote down what was sent and when.

        (`StripeClient` would not retry unless told to; the SDK's global functions retry twice.)
        """
        self._provider = provider
        self._guard, self.books = guard, guard.account
        self._share = share
        self._client = stripe.StripeClient(
            credentials.api_key,
            stripe_account=credentials.on_behalf_of,
            base_addresses={"api": provider.api_base, "connect": provider.connect_base},
            http_client=provider.transport,
            max_network_retries=0,
        )

    async def close(self) -> None:
        """Close the HTTP session that this client has of its own."""
        await self._provider.close()

    # --- Payments -------------------------------------------------------------------------------------------------

    async def create_intent(
        self,
        key: str,
        *,
        amount_minor: int,
        currency: str,
        method: str,
        capture: Capture,
        metadata: Mapping[str, str],
        confirmation: Confirmation = "server",
        challenge: bool = False,
    ) -> Outcome:
        """Create a PaymentIntent. Confirmed by us it takes no redirecting methods, so that it needs no return address."""
        params: PaymentIntentCreateParams = {
            "amount": amount_minor,
            "currency": currency.lower(),
            "capture_method": capture,
            "automatic_payment_methods": {"enabled": True},
            "metadata": dict(metadata),
        }
        if capture == "manual":
            params["payment_method_options"] = _CHALLENGED if challenge else _SEVERAL_CAPTURES
        if confirmation == "server":
            params["payment_method"] = method
            params["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "never"}
        return await self._post("intents.create", key, _INTENTS, params, reading.read_intent)

    async def confirm_intent(self, key: str, intent_id: str, method: str, *, return_url: str | None = None) -> Outcome:
        """Confirm, asking for the charge along with it: there stands when the authorization lapses."""
        params: PaymentIntentConfirmParams = {"payment_method": method, "expand": _WITH_CHARGE}
        if return_url is not None:
            params["return_url"] = return_url
        return await self._post("intents.confirm", key, _path(_INTENTS, intent_id, "/confirm"), params, reading.read_intent)

    async def capture_intent(self, key: str, intent_id: str, amount_minor: int, *, final: bool = True) -> Outcome:
        """Capture, asking for the balance transaction along with it: there stands the fee.

        `final_capture` may be sent only where several captures are possible, so it is left out of a last one.
        """
        params: PaymentIntentCaptureParams = {"amount_to_capture": amount_minor, "expand": _WITH_FEE}
        if not final:
            params["final_capture"] = False
        return await self._post("intents.capture", key, _path(_INTENTS, intent_id, "/capture"), params, reading.read_intent)

    async def cancel_intent(self, key: str, intent_id: str) -> Outcome:
        """Cancel the PaymentIntent, releasing what it holds."""
        return await self._post("intents.cancel", key, _path(_INTENTS, intent_id, "/cancel"), {}, reading.read_intent)

    async def retrieve_intent(self, intent_id: str) -> Outcome:
        """Read the PaymentIntent; one that came back from a decline is reported as `Declined`."""
        path = _path(_INTENTS, intent_id)
        return await self._get("intents.retrieve", path, {"expand": _WITH_FEE}, reading.read_intent)

    async def find_intent(self, payment_id: str, created_after: datetime) -> Outcome:
        """List from just before the time it was first sent, in growing windows: it was most likely made at once."""
        since = created_after - _SKEW
        for until in (*(created_after + window for window in _FIRST_WINDOWS), None):
            created = reading.between(since, until)
            params = {"created": created, "expand": [f"data.{name}" for name in _WITH_FEE]}
            found = await self._find("intents.list", _INTENTS, params, ("payment_id", payment_id))
            if found is not None:
                return reading.read_intent(cast("reading.Intent", found)) if isinstance(found, dict) else found
            if until is None or until > now() + _SKEW:
                break
            since = until
        return Rejected("not-found", f"no intent was made for payment {payment_id}")

    # --- Refunds and disputes -------------------------------------------------------------------------------------

    async def create_refund(
        self,
        key: str,
        *,
        intent_id: str,
        amount_minor: int,
        reason: str,
        metadata: Mapping[str, str],
        with_movement: bool = False,
    ) -> Outcome:
        """Create a Refund of a PaymentIntent."""
        params: RefundCreateParams = {"payment_intent": intent_id, "amount": amount_minor, "metadata": dict(metadata)}
        if with_movement:
            params["expand"] = _WITH_MONEY
        if reason in reading.REFUND_REASONS:
            params["reason"] = reason
        return await self._post("refunds.create", key, _REFUNDS, params, reading.read_refund)

    async def retrieve_refund(self, provider_id: str) -> Outcome:
        """Read the Refund."""
        return await self._get("refunds.retrieve", _path(_REFUNDS, provider_id), {"expand": _WITH_MONEY}, reading.read_refund)

    async def find_refund(self, intent_id: str, refund_id: str) -> Outcome:
        """List the intent's refunds: there are few."""
        params = {"payment_intent": intent_id, "expand": [f"data.{name}" for name in _WITH_MONEY]}
        found = await self._find("refunds.list", _REFUNDS, params, ("refund_id", refund_id))
        if found is None:
            return Rejected("not-found", f"no refund was made for refund {refund_id}")
        return reading.read_refund(cast("reading.Refund", found)) if isinstance(found, dict) else found

    async def retrieve_dispute(self, provider_id: str) -> SeenDispute | Rejected | Unknown | Throttled:
        """Read the Dispute with its balance transactions."""
        path = _path(_DISPUTES, provider_id)
        return _no_decline(await self._get("disputes.retrieve", path, {}, reading.read_dispute))

    # --- Lists ----------------------------------------------------------------------------------------------------

    async def list_intents(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenIntent]:
        """Every PaymentIntent made in between, newest first."""
        params = {"created": reading.between(created_from, created_to), "expand": [f"data.{name}" for name in _WITH_FEE]}
        async for row in self._rows("intents.list", _INTENTS, params):
            seen = reading.seen_intent(cast("reading.Intent", row))
            if seen is None:
                raise GatewayUnavailableError(f"the intent {row['id']} is {row['status']}, which is not known here")
            yield seen

    async def list_refunds(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenRefund]:
        """Every Refund made in between."""
        params = {"created": reading.between(created_from, created_to), "expand": [f"data.{name}" for name in _WITH_MONEY]}
        async for row in self._rows("refunds.list", _REFUNDS, params):
            yield _known(reading.read_refund(cast("reading.Refund", row)))

    async def list_disputes(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenDispute]:
        """Every Dispute opened in between."""
        async for row in self._rows("disputes.list", _DISPUTES, {"created": reading.between(created_from, created_to)}):
            yield _known(reading.read_dispute(cast("reading.Dispute", row)))

    async def list_transactions(self, created_from: datetime, created_to: datetime) -> AsyncIterator[SeenTransaction]:
        """Every BalanceTransaction made in between."""
        async for row in self._rows("transactions.list", _TRANSACTIONS, {"created": reading.between(created_from, created_to)}):
            yield reading.read_transaction(cast("reading.Transaction", row))

    async def account(self) -> SeenAccount | Rejected | Unknown | Throttled:
        """Read the key's own account. A restricted key may be refused that, and is a key all the same."""
        seen = await self._get("account.retrieve", "/v1/account", {}, lambda answer: SeenAccount(str(cast("Json", answer)["id"])))
        if isinstance(seen, Rejected) and seen.code == reading.FORBIDDEN:
            return SeenAccount(None)
        return _no_decline(seen)

    async def _exchange(self, code: str) -> SeenAccount | Rejected | Unknown | Throttled:
        asked = {"grant_type": "authorization_code", "code": code, "base": "connect"}
        read: Callable[[Json], SeenAccount] = lambda answer: SeenAccount(str(answer["stripe_user_id"]))  # noqa: E731
        return _no_decline(await self._get("oauth.token", "/oauth/token", asked, read, method="post"))

    # --- One call -------------------------------------------------------------------------------------------------

    async def _post(self, endpoint: str, key: str, path: str, params: Mapping[str, Any], read: Callable[[Any], T]) -> T | Failure:
        return await self._get(endpoint, path, {**params, "idempotency_key": key}, read, method="post")

    async def _get(
        self, endpoint: str, path: str, params: Mapping[str, Any], read: Callable[[Any], T], *, method: str = "get"
    ) -> T | Failure:
        """Make one call, once the account's limits let it out, and say in our words what came of it."""
        send: Callable[[], Awaitable[T | Failure]] = lambda: self._send(method, path, params, read)  # noqa: E731
        return await self._guard.call(endpoint, send, self._share)

    async def _send(self, method: str, path: str, params: Mapping[str, Any], read: Callable[[Any], T]) -> T | Failure:
        """Only cancellation passes through.

        The SDK's raw request leaves out its typed objects, whose construction is more than half of a call's CPU.
        """
        try:
            answer = await self._client.raw_request_async(method, path, **params)
            return read(answer.data)
        except stripe.StripeError as error:
            return _failure(error)
        except Exception as error:  # noqa: BLE001 - the SDK lets transport errors through while it reads a body
            return Unknown(type(error).__name__)

    async def _rows(self, endpoint: str, path: str, params: Mapping[str, Any]) -> AsyncIterator[Json]:
        """Every row of a list, page by page. Raises GatewayUnavailableError where it breaks off."""
        after: Json = {}
        while True:
            asked = {"limit": _PAGE, **params, **after}
            page: Json | Failure = await self._get(endpoint, path, asked, _as_is)
            if not isinstance(page, dict):
                raise _BrokenOffError(page)
            for row in page["data"]:
                yield row
            if not page["has_more"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}

    async def _find(
        self, endpoint: str, path: str, params: Mapping[str, Any], wanted: tuple[str, str]
    ) -> Json | Rejected | Unknown | Throttled | None:
        """The first row with this metadata; None when the whole list has none."""
        name, value = wanted
        try:
            async for row in self._rows(endpoint, path, params):
                if (row.get("metadata") or {}).get(name) == value:
                    return row
        except _BrokenOffError as error:
            return error.failure
        return None


class _BrokenOffError(GatewayUnavailableError):
    """A list broke off with this failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure), failure.retry_after if isinstance(failure, Throttled) else None)
        self.failure: Rejected | Unknown | Throttled = _no_decline(failure)


def _as_is(answer: T) -> T:
    return answer


def _known(seen: T | Unknown) -> T:
    if isinstance(seen, Unknown):
        raise GatewayUnavailableError(seen.reason)
    return seen


def _no_decline(seen: T | Declined) -> T | Unknown:
    """No issuer is asked by a read, so none declines."""
    return Unknown("declined") if isinstance(seen, Declined) else seen


def _path(collection: str, object_id: str, verb: str = "") -> str:
    return f"{collection}/{quote(object_id, safe='')}{verb}"


def _failure(error: stripe.StripeError) -> Failure:
    """Sort an SDK error; only what Stripe documents as leaving no effect counts as definite."""
    detail = error.error
    if isinstance(error, stripe.CardError):
        intent = None if detail is None else detail.payment_intent
        decline_code, charge = (None, None) if detail is None else (detail.decline_code, detail.charge)
        return Declined(decline_code or error.code or "declined", None if intent is None else intent.id, charge)
    if isinstance(error, stripe.RateLimitError):
        return Throttled(reading.retry_after(error.headers or {}))
    if isinstance(error, stripe.IdempotencyError):
        # The first request under this key may well have moved money: nobody may take this for a clean failure.
        return Unknown("key-used-for-another-request")
    if error.http_status in _DEFINITE:
        code = error.code or (None if detail is None else detail.code)
        return Rejected(reading.rejection(error.http_status, code), error.user_message or "")
    if error.http_status:
        # A replayed failure was stored under the key: the same key will say nothing else for as long as it lives.
        return Unknown(f"http-{error.http_status}", stored=(error.headers or {}).get("Idempotent-Replayed") == "true")
    return Unknown(type(error).__name__)
