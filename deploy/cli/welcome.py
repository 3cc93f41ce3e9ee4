"""What `up` ends with: two shops to buy in, a console to run them from, and who may sign in there.

All of it is made through the public APIs, and found again: a second `up` makes nothing. Passwords are of this machine alone.
"""

import asyncio
import json as jsonlib
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.cli.api import Api, RefusedError, connected
from deploy.cli.demo.purchases import CURRENCY, offers
from deploy.cli.errors import CommandError
from deploy.cli.shop import Shop
from deploy.cli.supply import Offer, supply
from deploy.cli.tenants import Onboarded, Wish, onboarded, operator, write_private
from deploy.local.description import StackDescription

STAFF: Final = ("owner", "support", "viewer")
"""Who of the demonstration's staff gets a log-in, each called after their role."""

_SHOPPER: Final = "customer:ada"
_TEAS: Final = Wish.of("demo")
_LAMPS: Final = Wish.of("lantern", name="Laterne", currency="EUR", country="DE")
_LOOKS: Final = {
    _TEAS.slug: {"accent": "#0f6b5c", "logo_text": "Leaf & Pot", "tagline": "Leaves, and what to put them in"},
    _LAMPS.slug: {
        "accent": "#ffcc33",
        "logo_text": "Laterne",
        "tagline": "Light for the dark months",
        "typeface": "serif",
        "corners": "square",
    },
}
COUPON: Final = "WELCOME10"
_TENTH: Final = {"name": "10 % off, to say hello", "kind": "percentage", "percent": "10", "requires_coupon": True}
_LIGHTS: Final = (
    Offer("LAMP-OIL", "Oil lamp, brass", "lamps", 8_900, 100),
    Offer("LAMP-STORM", "Storm lantern", "lamps", 4_250, 100),
    Offer("CANDLE-BEESWAX", "Beeswax candles, six", "candles", 1_880, 100),
    Offer("WICK-FLAT", "Flat wick, 3 m", "parts", 450, 100),
)


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody of the demonstration's staff."""

    role: str
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Where to begin."""

    gateway_url: str
    logins: Sequence[Login]
    shopper_link: str

    @property
    def shop_url(self) -> str:
        """The first shop."""
        return f"{self.gateway_url}/?shop={_TEAS.slug}"

    def lines(self) -> list[str]:
        """What `up` prints."""
        return [
            "",
            f"  shop      {self.shop_url}   (and /?shop={_LAMPS.slug}, which looks different)",
            f"  console   {self.gateway_url}/console/?shop={_TEAS.slug}",
            f"  docs      {self.gateway_url}/docs/",
            *(f"  {each.role:<9} {each.email}  {each.password}" for each in self.logins),
            f"  shopper   {self.shop_url}{self.shopper_link}   (signs in once)",
            f"  coupon    {COUPON}   (in the shop's cart)",
        ]


async def prepare(stack: StackDescription, say: Callable[[str], None]) -> Welcome | None:
    """Have the shops and the log-ins, or find them again; None where there is no gateway to come in at."""
    if stack.gateway_url is None:
        return None
    async with connected(stack) as api:
        teas, lamps = await asyncio.gather(onboarded(api, _TEAS), onboarded(api, _LAMPS))
        _, _, logins, link, _ = await asyncio.gather(
            _furnished(api, teas, offers(), say),
            _furnished(api, lamps, _LIGHTS, say),
            _logins(api, teas),
            _shopper_link(api, teas),
            _promoted(api, teas),
        )
    return Welcome(stack.gateway_url, logins, link)


async def _furnished(api: Api, tenant: Onboarded, wares: Sequence[Offer], say: Callable[[str], None]) -> None:
    """Something to sell, and a look, unless its tenant has chosen another."""
    shop, currency = tenant.shop(api), tenant.tenant["currency"]
    await supply(shop, currency or CURRENCY, wares, say)
    path, token = f"/v1/tenants/{tenant.tenant_id}", await shop.token()
    found = (await api.call("identity", "GET", path, token=token)).body
    if "storefront" not in found["settings"]:
        settings = {"storefront": _LOOKS[tenant.tenant["slug"]]}
        await api.call("identity", "PATCH", path, token=token, body={"settings": settings})


async def _promoted(api: Api, tenant: Onboarded) -> None:
    """A coupon to try, unless its tenant has promotions."""
    token = await tenant.shop(api).token()
    if not (await api.call("cart", "GET", "/v1/promotions?limit=1", token=token)).body["items"]:
        await api.call("cart", "PUT", f"/v1/promotions/{COUPON}", token=token, body=_TENTH)


async def _shopper_link(api: Api, tenant: Onboarded) -> str:
    """What a shop's server sends somebody whom it knows: good once, and for one browser."""
    shop: Shop = tenant.shop(api)
    body = {"shopper_ref": _SHOPPER}
    granted = (await api.call("identity", "POST", "/v1/sessions", token=await shop.token(), body=body)).body
    return f"#/in/{granted['refresh_token']}"


async def _logins(api: Api, tenant: Onboarded) -> Sequence[Login]:
    """Those that this machine remembers, and those that are missing, invited and taken in."""
    file = api.stack.home / "tenants" / f"{tenant.tenant['slug']}.log-ins.json"
    known = _remembered(file, str(tenant.tenant_id))
    missing = [role for role in STAFF if role not in known]
    if missing:
        made = await asyncio.gather(*(_made(api, tenant, role) for role in missing))
        known |= {login.role: login for login in made if login is not None}
        kept = {role: [login.email, login.password] for role, login in known.items()}
        write_private(file, jsonlib.dumps({"tenant_id": str(tenant.tenant_id), "log_ins": kept}) + "\n")
    return [known[role] for role in STAFF if role in known]


def _remembered(file: Path, tenant_id: str) -> dict[str, Login]:
    try:
        kept = jsonlib.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if kept.get("tenant_id") != tenant_id:
        return {}
    return {role: Login(role, email, password) for role, (email, password) in kept["log_ins"].items()}


async def _made(api: Api, tenant: Onboarded, role: str) -> Login | None:
    """Somebody new; None if the address is a member's already, whose password nobody here knows."""
    email, password = f"{role}@{tenant.tenant['slug']}.test", secrets.token_urlsafe(12)
    body = {"email": email, "roles": [role], "tenant_id": str(tenant.tenant_id)}
    key = f"log-in:{tenant.tenant_id}:{role}:{secrets.token_hex(4)}"
    try:
        token = await operator(api).token()
        invited = (await api.call("identity", "POST", "/v1/invitations", token=token, body=body, key=key)).body
        acceptance: dict[str, Any] = {"token": invited["token"], "name": role.capitalize(), "password": password}
        await api.call("identity", "POST", "/v1/invitations/accept", body=acceptance)
    except RefusedError:
        return None
    return Login(role, email, password)


async def told(stack: StackDescription, say: Callable[[str], None]) -> Sequence[str]:
    """The lines to print. That a demonstration cannot be made is told, and keeps no stack from running."""
    try:
        welcome = await prepare(stack, say)
    except CommandError as error:
        return [f"  no demonstration: {error}"]
    return welcome.lines() if welcome else []


def opened(stack: StackDescription) -> None:
    """Show the shop in the user's own browser, where there is one."""
    import webbrowser

    has_display = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if stack.gateway_url is None or not has_display or not webbrowser.open(f"{stack.gateway_url}/?shop={_TEAS.slug}"):
        print("there is no browser to open here")
