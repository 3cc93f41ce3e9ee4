"""The whole stack as one object: starts everything by readiness, watches it, and stops it in reverse.

Used as `async with Stack(home) as stack:`, then `stack.description().url("cart")`,
`await stack.kill("checkout.worker")`, `await stack.start_process("checkout.worker")`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from deploy.local import gateway
from deploy.local.addresses import cell_address, service_address
from deploy.local.copies import Copies, named, operator_port, ports_of, processes
from deploy.local.description import StackDescription, server_of
from deploy.local.environment import PLATFORM_CLIENT_ID, Wiring, refuse_unknown_variables, variable
from deploy.local.errors import ProcessError, StackError
from deploy.local.gateway import Gateway
from deploy.local.infrastructure import Infrastructure, Kind, ports_needed
from deploy.local.kafka.listeners import BrokerAccess
from deploy.local.orphans import birth, end_orphans
from deploy.local.parts import Part
from deploy.local.ports import choose_ports
from deploy.local.preparing import prepare_broker, prepare_databases
from deploy.local.processes import Child, in_parallel
from deploy.local.services import (
    address,
    fake_stripe,
    have_payments_told,
    put_faults,
    service_process,
)
from deploy.local.state import Home
from deploy.local.wiring import wired
from services import SERVICES

_REAL_STRIPE: Final = "https://api.stripe.com"
_LONGEST_PAUSE_SECONDS: Final = 30


class Stack:
    """Postgres, Kafka, the fake Stripe and the services, as children of this process."""

    def __init__(
        self,
        home: Path,
        *,
        database_prefix: str = "",
        topic_prefix: str = "",
        postgres_admin_url: str | None = None,
        kafka_bootstrap: str | None = None,
        stripe_api_base: str | None = None,
        stripe_api_key: str | None = None,
        services: Sequence[str] = SERVICES,
        copies: Copies = MappingProxyType({}),
        cells: Sequence[str] = (),
        kind: Kind = "embedded",
        access: BrokerAccess = "publishers",
        supervise: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Describe a stack; nothing is touched before `start`.

        A given address means that nothing is started for that part. `access` is what a broker that is started lets those do
        who have no credentials. `cells` are those besides the main one; those that the home once had it has again.
        `supervise` restarts what crashes; `say` is told about progress, moved ports and crashes. With a `database_prefix`
        the ports are random from the start, since several such stacks start at once.
        """
        self.home = Home(home)
        self._prefixes = (database_prefix, topic_prefix)
        self._given = {"postgres_admin_url": postgres_admin_url, "kafka_bootstrap": kafka_bootstrap}
        self._stripe_api_base, self._stripe_api_key = stripe_api_base, stripe_api_key
        self._access: BrokerAccess = access
        self._services, self._kind, self._supervise, self._say = tuple(services), kind, supervise, say
        self._copies, self._cells = dict(copies), tuple(cells)
        self._infrastructure: Infrastructure | None = None
        self._wiring: Wiring | None = None
        self._ports: dict[str, int] = {}
        self._parts: dict[str, Part] = {}
        self._held = ExitStack()
        self._is_whole = set(SERVICES) <= {*services}
        self._envoy = gateway.program() if self._is_whole else None
        self._gateway: Gateway | None = None
        self._phase = "stopped"
        self._revivals: set[asyncio.Task[None]] = set()
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One a part: a service that waits for its broker must not keep the broker from being started."""

    @classmethod
    def from_environment(
        cls,
        home: Path,
        *,
        copies: Copies = MappingProxyType({}),
        cells: Sequence[str] = (),
        kind: Kind = "embedded",
        access: BrokerAccess = "publishers",
        supervise: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Describe the stack the user asks for: `CARTWRIGHT_*` variables point any part at a real one."""
        refuse_unknown_variables()
        key, base = variable("STRIPE_API_KEY"), variable("STRIPE_API_BASE")
        if base and not key:
            raise StackError("CARTWRIGHT_STRIPE_API_BASE is set without CARTWRIGHT_STRIPE_API_KEY: set both or neither")
        return cls(
            home,
            topic_prefix=variable("TOPIC_PREFIX") or "",
            postgres_admin_url=variable("POSTGRES_ADMIN_URL"),
            kafka_bootstrap=variable("KAFKA_BOOTSTRAP_SERVERS"),
            stripe_api_base=base or (_REAL_STRIPE if key else None),
            stripe_api_key=key,
            copies=copies,
            cells=cells,
            kind=kind,
            access=access,
            supervise=supervise,
            say=say,
        )

    async def __aenter__(self) -> Self:
        """Start everything."""
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop everything, leaving its state."""
        await self.stop()

    async def start(self) -> None:
        """Start every part and return when all are ready; on failure nothing is left running."""
        self.home.prepare()
        self._held.enter_context(self.home.hold())
        self.home.want_copies(self._copies)
        self._cells = self.home.have_cells(self._cells)
        try:
            if left := end_orphans(self.home):
                self._say(f"ended what an earlier run had left: {', '.join(left)}")
            self._describe()
            self._enter("starting")
            await self._start_parts()
            self._enter("ready")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the services, then what they stand on; whatever does not end in time is killed."""
        self._enter("stopping")
        for revival in self._revivals:
            revival.cancel()
        if "gateway" in self._parts:
            await self._parts["gateway"].stop()
        await in_parallel(*(self._parts[name].stop() for name in self._service_names()))
        for name in ("stripe", "kafka", "postgres"):
            if name in self._parts:
                await self._parts[name].stop()
        self._enter("stopped")
        self._held.close()

    async def heal(self) -> None:
        """Start what has died again, on the same ports, and have as many processes as was asked for."""
        for name in ("postgres", "kafka", "stripe"):
            if name in self._parts:
                await self._start_if_dead(name)
        await in_parallel(*(self._start_if_dead(name) for name in self._service_names()))
        if "gateway" in self._parts:
            await self._start_if_dead("gateway")
        await self.scale(self.home.wanted_copies())

    async def scale(self, copies: Copies) -> None:
        """Have so many processes of each kind that is named, as balanced as they are: nobody is told to leave who is called."""
        before = {*processes(self._services, self._copies, self._cells)}
        self._copies |= copies
        after = [*processes(self._services, self._copies, self._cells)]
        new, surplus = [name for name in after if name not in before], before - {*after}
        self._ports |= choose_ports(ports_of(new), self._ports, self._say)
        self._describe_processes(new)
        await in_parallel(*(self._start_and_say(name) for name in new))
        if self._gateway:
            self._gateway.configure()
        gone = {name: self._parts.pop(name) for name in surplus}
        await in_parallel(*(part.stop() for part in gone.values()))
        self.home.record(ports=self._ports)
        self._record()

    async def start_process(self, name: str) -> None:
        """Start one part (`checkout.worker`, `kafka`, …) and return when it is ready."""
        await self._start_part(name)
        self._record()

    async def stop_process(self, name: str) -> None:
        """Have one part drain and end (SIGTERM), and return when it is gone."""
        await self._parts[name].stop()
        self._record()

    async def kill(self, name: str) -> None:
        """Kill one part (SIGKILL) and return when it is gone."""
        await self._parts[name].kill()
        self._record()

    @property
    def admin_url(self) -> str:
        """Return where Postgres's administrator connects, password included."""
        if self._wiring is None:
            raise StackError("the stack has not been started")
        return self._wiring.admin_url

    def pids(self) -> dict[str, int]:
        """Return the process id of every part that runs, by name."""
        return {name: pid for name, part in self._parts.items() if (pid := part.pid) is not None}

    def dead(self) -> list[str]:
        """Name the parts that do not run."""
        return [name for name, part in self._parts.items() if not part.running]

    def description(self) -> StackDescription:
        """Return where everything listens, and how it is."""
        if self._wiring is None:
            raise StackError("the stack has not been started")
        pids = self.pids()
        host, port = server_of(self._wiring.admin_url)
        return StackDescription(
            state="running" if self._phase == "ready" and not self.dead() else "degraded",
            home=self.home.path,
            services={service: service_address(service, self._copies, self._ports, pids) for service in self._services},
            postgres_host=host,
            postgres_port=port,
            kafka_bootstrap_servers=self._wiring.bootstrap_servers,
            stripe_api_base=self._wiring.stripe_api_base,
            stripe_api_key=self._wiring.stripe_api_key,
            platform_client_id=PLATFORM_CLIENT_ID,
            platform_secret_file=self._wiring.platform_secret_file,
            topic_prefix=self._wiring.topic_prefix,
            gateway_url=address(self._ports["gateway"]) if self._envoy else None,
            kafka_sasl=self._wiring.kafka_sasl,
            kafka_access=self._access if self._wiring.kafka_sasl else None,
            cells={cell: cell_address(cell, self._services, self._ports, pids) for cell in self._cells},
            database_prefix=self._prefixes[0],
        )

    async def put_faults(self, faults: object) -> None:
        """Have the fake Stripe misbehave as told (`PUT /_control/faults`)."""
        if "stripe" not in self._parts:
            raise StackError("--faults needs the fake Stripe: unset CARTWRIGHT_STRIPE_API_KEY")
        await put_faults(address(self._ports["stripe"]), faults)

    def _describe(self) -> None:
        remembered = self.home.read().get("ports", {})
        chosen = choose_ports(self._ports_needed(), remembered, self._say, spread=bool(self._prefixes[0]))
        self._ports = remembered | chosen
        self._infrastructure = Infrastructure(
            self.home, self._ports, kind=self._kind, access=self._access, say=self._say, on_exit=self._exited, **self._given
        )
        self._wiring = wired(
            self.home,
            self._infrastructure,
            self._ports,
            self._prefixes,
            (self._stripe_api_base, self._stripe_api_key),
            has_gateway=self._envoy is not None,
            cells=self._cells,
        )
        self._parts = dict(self._infrastructure.parts())
        if self._stripe_api_base is None:
            self._parts["stripe"] = fake_stripe(self.home, self._ports["stripe"], self._exited)
        if self._envoy:
            self._gateway = Gateway(self.home, self._ports, self._envoy, self._wiring.issuer, self._exited)
            self._parts["gateway"] = self._gateway
        elif self._is_whole:
            self._say("there is no Envoy for this platform: customers reach each service at its own address")
        own = not variable("MASTER_KEY")
        prefixes = dict(zip(("database_prefix", "topic_prefix"), self._prefixes, strict=True))
        self.home.record(ports=self._ports, processes={}, own_master_key=own, **prefixes)

    def _ports_needed(self) -> list[str]:
        names = ports_of(processes(self._services, self._copies, self._cells))
        names += ports_needed(self._kind, **self._given)
        names += gateway.PORTS if self._envoy else ()
        return names if self._stripe_api_base else [*names, "stripe"]

    async def _start_parts(self) -> None:
        assert self._infrastructure
        first = [
            self._start_databases(self._infrastructure),
            self._start_broker(self._infrastructure),
            self._describe_services(),
        ]
        if "stripe" in self._parts:
            first.append(self._start_and_say("stripe"))
        await in_parallel(*first)
        self._record()
        await in_parallel(*(self._start_and_say(name) for name in self._service_names()))
        if "gateway" in self._parts:
            await self._start_and_say("gateway")
        if {"stripe", "payments.api"} <= self._parts.keys():
            assert self._wiring
            await have_payments_told(self._wiring, self._ports)

    async def _describe_services(self) -> None:
        """Describe the services' processes, in a thread: their settings are loaded while the servers start."""
        assert self._wiring
        await asyncio.to_thread(self._describe_processes, [*processes(self._services, self._copies, self._cells)])

    def _describe_processes(self, names: Sequence[str]) -> None:
        assert self._wiring
        for name in names:
            self._parts[name] = service_process(name, self.home, self._wiring, self._ports, self._exited)
        if self._gateway:
            self._gateway.apis = {service: self._doors(service) for service in self._services}

    async def _start_databases(self, infrastructure: Infrastructure) -> None:
        await infrastructure.start_database()
        await prepare_databases(self.home, infrastructure.admin_url, self._services, self._cells, self._prefixes[0])
        self._say("databases are migrated")

    async def _start_broker(self, infrastructure: Infrastructure) -> None:
        await infrastructure.start_broker()
        await self._prepare_broker()

    async def _prepare_broker(self) -> None:
        assert self._infrastructure
        await prepare_broker(self._infrastructure, self._kind, self._access, self._prefixes[1])

    async def _start_and_say(self, name: str) -> None:
        await self._parts[name].start()
        self._say(f"{name} is ready on {address(self._ports[name])}")

    async def _start_if_dead(self, name: str) -> None:
        async with self._starting[name]:
            if not self._parts[name].running:
                await self._start_part(name)
                self._say(f"{name} runs again")

    async def _start_part(self, name: str) -> None:
        await self._parts[name].start()
        if name == "kafka":  # it may have come back without its disk
            await self._prepare_broker()

    def _service_names(self) -> list[str]:
        return [name for name in self._parts if "." in name]

    def _doors(self, service: str) -> list[tuple[int, int]]:
        return [(self._ports[api], self._ports[operator_port(api)]) for api in named(service, "api", self._copies)]

    def _exited(self, child: Child) -> None:
        self._record()
        if self._phase != "ready":
            return  # whoever is starting it reports
        self._say(str(child.ended()))
        if self._supervise:
            self._later(self._revive(child.name))

    async def _revive(self, name: str) -> None:
        pause = 1.0
        while self._phase == "ready":
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                await self._start_if_dead(name)
            except ProcessError as error:
                self._say(str(error))
                continue
            self._record()
            return

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._revivals.add(task)
        task.add_done_callback(self._revivals.discard)

    def _enter(self, phase: str) -> None:
        self._phase = phase
        if self._wiring:
            self._record()

    def _record(self) -> None:
        processes = {name: (pid, birth(pid)) for name, pid in self.pids().items()}
        self.home.record(phase=self._phase, processes=processes, stack=self.description().as_json())
