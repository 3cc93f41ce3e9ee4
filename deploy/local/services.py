"""The processes of ours that a stack runs: each service's `api` and `worker`, their migrations, the fake Stripe."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from deploy.local import readiness
from deploy.local.copies import operator_port, parsed
from deploy.local.environment import Wiring, child_environment, migration_environment, python
from deploy.local.errors import StackError
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent, in_full_slices
from deploy.local.state import Home

_TOLD_EVENTS: Final = (
    *("payment_intent.amount_capturable_updated", "payment_intent.canceled", "payment_intent.payment_failed"),
    *("payment_intent.requires_action", "payment_intent.succeeded", "refund.*", "charge.dispute.*"),
)
"""What payments can learn something from."""


class HttpProcess:
    """A Python child that is ready when one of its URLs answers 200."""

    def __init__(self, child: Child, ready_url: str) -> None:
        """Pair the process with the URL."""
        self._child, self._ready_url = child, ready_url

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.pid is not None

    async def start(self) -> None:
        """Start it and return when it is ready."""
        await self._child.start()
        await self._child.until_ready(self._ready_url)

    async def stop(self) -> None:
        """Let it drain and end."""
        await self._child.stop()

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._child.kill()


def service_process(
    name: str, home: Home, wiring: Wiring, ports: Mapping[str, int], on_exit: Callable[[Child], None] | None
) -> HttpProcess:
    """Return one of a service's processes (`cart.api`, `cart.worker`, `cart.worker.2`, `cart.worker@east`, …)."""
    service, kind, cell = parsed(name)
    child = Child(
        name,
        # Killed outright if `up` is: they are made to survive exactly that.
        [*dying_with_parent("KILL"), *python("deploy.cli", "serve", service, kind)],
        environment=wiring.serving(service, kind, ports[name], ports[operator_port(name)], cell),  # type: ignore[arg-type]
        log=home.log(name),
        on_exit=on_exit,
        secrets=partial(wiring.secrets, service),
    )
    return HttpProcess(child, f"{address(ports[operator_port(name)])}/startupz")


def fake_stripe(home: Home, port: int, on_exit: Callable[[Child], None] | None) -> HttpProcess:
    """Return the payment provider's stand-in."""
    where = ("--host", HOST, "--port", str(port), "--state", str(home.path / "stripe.json"))
    child = Child(
        "stripe",
        [*dying_with_parent("TERM"), *in_full_slices(), *python("deploy.local.fake_stripe", *where)],
        environment=child_environment(),
        log=home.log("stripe"),
        on_exit=on_exit,
    )
    return HttpProcess(child, f"{address(port)}/_control/readyz")


async def migrate_in_child(home: Home, service: str, owner_url: str, platform_secret_file: Path) -> None:
    """Bring a service's database up to date, in a process of its own that alone gets the owner's password."""
    await Child(
        f"{service}.migrate",
        [*dying_with_parent("KILL"), *python("deploy.cli", "migrate", service)],
        environment=migration_environment(owner_url, service, platform_secret_file),
        log=home.log(f"{service}.migrate"),
    ).run()


def address(port: int) -> str:
    """Return the base address of a port on the loopback."""
    return f"http://{HOST}:{port}"


async def have_payments_told(wiring: Wiring, ports: Mapping[str, int]) -> None:
    """Have the fake Stripe send all events of the shared account to the one address that payments has for it."""
    webhooks = {
        "api_key": wiring.stripe_api_key,
        "url": address(ports["payments.api"]) + "/v1/webhooks/stripe",
        "secret": wiring.stripe_webhook_secret.replace(",", " ").split()[0],
        "enabled_events": _TOLD_EVENTS,
    }
    url = f"{address(ports['stripe'])}/_control/webhooks"
    if await readiness.status(url, method="PUT", body=webhooks) != readiness.OK:
        raise StackError("the fake Stripe does not take the address of the payments service's webhooks")


async def put_faults(api_base: str, faults: object) -> None:
    """Tell a fake Stripe how to misbehave."""
    answer = await readiness.status(f"{api_base}/_control/faults", method="PUT", body=faults)
    if answer is None or answer >= readiness.BAD_REQUEST:
        raise StackError(f"the fake Stripe does not accept these faults (it answers {answer})")


def new_root_key() -> str:
    """A private JWK: the root key of an issuer that has none yet."""
    return str(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1())))
