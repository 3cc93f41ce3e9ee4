"""The account: itself, its balance, its transactions, its events and its webhook endpoints."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from secrets import token_urlsafe

from deploy.local.fake_stripe.endpoints.call import PAGE, Call, Done, View, expansions, new_id, page_of
from deploy.local.fake_stripe.errors import invalid
from deploy.local.fake_stripe.form import Form
from deploy.local.fake_stripe.history import KIND, Event
from deploy.local.fake_stripe.listing import read_window
from deploy.local.fake_stripe.objects.money import balance_object
from deploy.local.fake_stripe.objects.telling import (
    account_object,
    deleted_object,
    endpoint_object,
    event_object,
    list_object,
)
from deploy.local.fake_stripe.records import Change, WebhookEndpoint

MOST_ENDPOINTS = 16
"""Of one account, in each mode."""
_ENDPOINT = frozenset({"api_version", "connect", "description", "enabled_events", "expand", "metadata", "url"})


def refuse_search(_: Call) -> Done:
    """GET /v1/…/search: Stripe's index lags behind, so that nothing that must be found is found by it."""
    raise invalid("Searching is not served by this fake: Stripe's index may be minutes behind. List, or read by the id.")


def retrieve_account(call: Call) -> Done:
    """GET /v1/account."""
    call.form.only({"expand"})
    return Done(account_object(call.account.public_id))


def retrieve_balance(call: Call) -> Done:
    """GET /v1/balance."""
    call.form.only({"expand"})
    return Done(balance_object(call.account.transactions, call.now))


def retrieve_transaction(call: Call) -> Done:
    """GET /v1/balance_transactions/{id}."""
    call.form.only({"expand"})
    paths = expansions(call.form, "transaction")
    return Done(View(call).render(call.account.transactions.get(call.object_id), paths))


def list_transactions(call: Call) -> Done:
    """GET /v1/balance_transactions: newest first, by source, type, currency and time."""
    form = call.form
    form.only(PAGE | {"currency", "source", "type"})
    shelf = call.account.transactions
    listing = shelf.listing(source=form.text("source"), type=form.text("type"), currency=form.text("currency"))
    return page_of(call, shelf, listing, "transaction", url="/v1/balance_transactions")


def retrieve_event(call: Call) -> Done:
    """GET /v1/events/{id}."""
    call.form.only({"expand"})
    return Done(_event(call, call.account.events.get(call.object_id)))


def list_events(call: Call) -> Done:
    """GET /v1/events: newest first, by type (`charge.*` too) or types."""
    form = call.form
    form.only(PAGE | {"type", "types"})
    wanted = [pattern for pattern in (form.text("type"), *form.strings("types")) if pattern]
    events = call.account.events
    if wanted:
        events = replace(events, fits=lambda event: any(fnmatchcase(event.type, pattern) for pattern in wanted))
    page = events.page(read_window(form, events, KIND))
    rows = [_event(call, events.get(event_id)) for event_id in page.ids]
    return Done(list_object("/v1/events", rows, has_more=page.has_more))


def create_endpoint(call: Call) -> Done:
    """POST /v1/webhook_endpoints; the answer alone shows the secret."""
    form = call.form
    form.only(_ENDPOINT)
    form.required("url")
    endpoint = WebhookEndpoint(
        id=new_id("we"),
        url=_url(form) or "",
        secrets=(new_secret(),),
        enabled_events=_enabled(form) or (),
        created=call.now,
        description=form.text("description"),
        metadata=form.metadata(),
        api_version=form.text("api_version"),
        connect=form.flag("connect"),
    )
    if sum(not each.template for each in call.account.endpoints) >= MOST_ENDPOINTS:
        raise invalid(f"You have reached the maximum of {MOST_ENDPOINTS} test webhook endpoints.")
    if not endpoint.enabled_events:
        raise invalid("Missing required param: enabled_events.", code="parameter_missing", param="enabled_events")
    return Done(endpoint_object(endpoint, with_secret=True), 200, Change(endpoint=endpoint))


def update_endpoint(call: Call) -> Done:
    """POST /v1/webhook_endpoints/{id}; `disabled=true` stops what is sent to it."""
    form = call.form
    form.only(_ENDPOINT - {"api_version", "connect"} | {"disabled"})
    endpoint = _endpoint(call)
    enabled = endpoint.enabled if form.text("disabled") is None else not form.flag("disabled")
    endpoint = replace(
        endpoint,
        url=_url(form) or endpoint.url,
        enabled_events=_enabled(form) or endpoint.enabled_events,
        description=form.text("description") if "description" in form else endpoint.description,
        metadata={**endpoint.metadata, **form.metadata()},
        enabled=enabled,
    )
    return Done(endpoint_object(endpoint), 200, Change(endpoint=endpoint))


def delete_endpoint(call: Call) -> Done:
    """DELETE /v1/webhook_endpoints/{id}."""
    endpoint = _endpoint(call)
    return Done(deleted_object("webhook_endpoint", endpoint.id), 200, Change(endpoint=replace(endpoint, deleted=True)))


def retrieve_endpoint(call: Call) -> Done:
    """GET /v1/webhook_endpoints/{id}."""
    call.form.only({"expand"})
    return Done(endpoint_object(_endpoint(call)))


def list_endpoints(call: Call) -> Done:
    """GET /v1/webhook_endpoints: Stripe's; the template of `/_control/webhooks` is not among them."""
    call.form.only(PAGE - {"created"})
    shelf = call.account.endpoints
    listing = shelf.only(lambda endpoint: not endpoint.template)
    page = listing.page(read_window(call.form, listing, shelf.kind))
    rows = [endpoint_object(shelf.get(endpoint_id)) for endpoint_id in page.ids]
    return Done(list_object("/v1/webhook_endpoints", rows, has_more=page.has_more))


def new_secret() -> str:
    """Make a signing secret in Stripe's form."""
    return f"whsec_{token_urlsafe(24).replace('-', 'A').replace('_', 'B')}"


def _event(call: Call, event: Event) -> dict[str, object]:
    count = call.account.owed_count[event.id]
    return event_object(event, View(call).render, version=call.version, pending_count=count, account=call.account.connected)


def _endpoint(call: Call) -> WebhookEndpoint:
    endpoint = call.account.endpoints.get(call.object_id)
    return call.account.endpoints.get("") if endpoint.template else endpoint


def _url(form: Form) -> str | None:
    url = form.text("url")
    if url is not None and not url.startswith(("http://", "https://")):
        raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", code="url_invalid", param="url")
    return url


def _enabled(form: Form) -> tuple[str, ...] | None:
    return tuple(form.strings("enabled_events")) or None
