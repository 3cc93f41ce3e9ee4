"""Envoy as a part of the local stack: configured from what is declared, ready when it lets customers in."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deploy.gateway.declared import committed
from deploy.gateway.files import BOOTSTRAP, configuration, write
from deploy.gateway.plan import BEGINNERS, STRANGERS, Limits, Plan, Rate, Upstream
from deploy.local import readiness
from deploy.local.environment import child_environment, variable
from deploy.local.errors import ProcessError, StackError
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent
from deploy.local.state import Home
from services import SERVICES

PORTS: Final = ("gateway", "gateway.ops")
SOURCE: Final = "127.0.0.2" if sys.platform == "linux" else HOST
"""Where it asks the services from: whoever else is on this machine asks from another address, and is not believed.

Elsewhere than on Linux the loopback has one address only.
"""
_PATIENCE_SECONDS: Final = 20
_POLL_SECONDS: Final = 0.05


def program() -> Path | None:
    """Envoy, where there is one for this platform."""
    found = find_spec("envoy")
    file = Path(found.origin).parent / "_bin" / "envoy" if found and found.origin else None
    return file if file and file.exists() else None


def consoles(port: int) -> str:
    """Where the console is behind a gateway on this port, by either name of this machine."""
    return f"http://{HOST}:{port}/console/ http://localhost:{port}/console/"


def shops(port: int) -> str:
    """Where the shop is, likewise."""
    return f"http://{HOST}:{port}/ http://localhost:{port}/"


class Gateway:
    """One Envoy before the services of a stack."""

    def __init__(
        self,
        home: Home,
        ports: Mapping[str, int],
        envoy: Path,
        issuer: str,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Describe it; its files are written when it starts."""
        self._folder, self._ports, self._issuer = home.path / "gateway", ports, issuer
        self.apis: Mapping[str, Sequence[tuple[int, int]]] = {}
        """Each service's ports, customers' and operators', where it has others than its first."""
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        self._child = Child(
            "gateway",
            [*dying_with_parent("KILL"), str(envoy), "-c", str(self._folder / BOOTSTRAP), *options],
            environment=child_environment(),
            log=home.log("gateway"),
            on_exit=on_exit,
        )

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.pid is not None

    def configure(self) -> None:
        """Write its files, which it takes up while it runs."""
        plan = Plan(
            services={service: self._upstreams(service) for service in SERVICES},
            folder=self._folder,
            host=HOST,
            port=self._ports["gateway"],
            ops_port=self._ports["gateway.ops"],
            issuer=self._issuer,
            limits=_limits(),
            source=SOURCE if SOURCE != HOST else "",
        )
        write(configuration(plan, committed()), self._folder)

    async def start(self) -> None:
        """Start it and return when it lets customers in."""
        self.configure()
        await self._child.start()
        await self._child.until_ready(f"http://{HOST}:{self._ports['gateway.ops']}/ready")
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE_SECONDS
        while await readiness.status(f"http://{HOST}:{self._ports['gateway']}/") is None:
            if self.pid is None or loop.time() > end:
                raise ProcessError("gateway", "takes none of its configuration", self._child.log_tail())
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """End it."""
        await self._child.stop()

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._child.kill()

    def _upstreams(self, service: str) -> list[Upstream]:
        own = [(self._ports[f"{service}.api"], self._ports[f"{service}.ops"])]
        return [Upstream(HOST, port, ops_port) for port, ops_port in self.apis.get(service, own)]


def _limits() -> Limits:
    """What the user has set of them."""
    return Limits(strangers=_rate("STRANGERS", STRANGERS), beginners=_rate("BEGINNERS", BEGINNERS))


def _rate(whose: str, usual: Rate) -> Rate:
    name = f"GATEWAY_RATE_OF_{whose}"
    given = variable(name)
    if given is None:
        return usual
    per_second, _, burst = given.partition("/")
    if not (per_second.isdecimal() and burst.isdecimal() and int(per_second) and int(burst)):
        raise StackError(f"CARTWRIGHT_{name} is so many a second and so many at once, such as 200/2000")
    return Rate(int(per_second), int(burst))
