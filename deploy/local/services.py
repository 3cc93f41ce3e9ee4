"""The processes of ours that a stack runs: each service's `api` and `worker`, their migrations, the fake Stripe."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from deploy.local.environment import Wiring, child_environment, migration_environment, python
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent
from deploy.local.state import Home
from services import SERVICES


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


def service_processes(
    home: Home,
    wiring: Wiring,
    ports: dict[str, int],
    on_exit: Callable[[Child], None] | None,
    services: Sequence[str] = SERVICES,
) -> dict[str, HttpProcess]:
    """Return every service's two processes by name (`cart.api`, `cart.worker`, …)."""
    processes: dict[str, HttpProcess] = {}
    for service in services:
        for kind in ("api", "worker"):
            name = f"{service}.{kind}"
            child = Child(
                name,
                # Killed outright if `up` is: they are made to survive exactly that.
                [*dying_with_parent("KILL"), *python("deploy.cli", "serve", service, kind)],
                environment=wiring.serving(service, kind, ports[name], ports[f"{service}.ops"]),
                log=home.log(name),
                on_exit=on_exit,
                secrets=partial(wiring.secrets, service),
            )
            processes[name] = HttpProcess(child, f"{address(ports[operator_port(name)])}/startupz")
    return processes


def operator_port(process: str) -> str:
    """Which port answers operators of a process: a worker's only one, or the one beside an API's."""
    service, _, kind = process.partition(".")
    return f"{service}.ops" if kind == "api" else process


def fake_stripe(home: Home, port: int, on_exit: Callable[[Child], None] | None) -> HttpProcess:
    """Return the payment provider's stand-in."""
    where = ("--host", HOST, "--port", str(port), "--state", str(home.path / "stripe.json"))
    child = Child(
        "stripe",
        [*dying_with_parent("TERM"), *python("deploy.local.fake_stripe", *where)],
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
