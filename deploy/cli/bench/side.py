"""One of two stacks that stand on this machine at once: run by its own code as its users run it, and held still at times."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from deploy.cli.bench.revision import Revision
from deploy.cli.errors import CommandError, ExitCode
from deploy.local.description import StackDescription
from deploy.local.environment import variable
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.processes import Child, dying_with_parent
from deploy.local.state import Home

_SERVERS: Final = ("POSTGRES_ADMIN_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_KEY")
_NEWER: Final = "--bare"
"""An option that old revisions do not have, nor what it leaves out."""
_START_SECONDS: Final = 300
_STOP_SECONDS: Final = 90
_POLL_SECONDS: Final = 0.1
_SAYS: Final = "cartwright: "
_LINES: Final = 100


class Side:
    """A stack on servers of its own, by one revision's code."""

    def __init__(self, name: str, revision: Revision, home: Path) -> None:
        """Describe it; nothing is touched before `start`."""
        self.name, self.revision = name, revision
        self._home = Home(home)
        folder = {"PYTHONPATH": str(revision.folder), "CARTWRIGHT_HOME": str(home)}
        self._child = Child(
            name,
            [*dying_with_parent("TERM"), str(revision.python), "-P", "-m", "deploy.cli", "up", "--behind", *_newer(revision)],
            environment={**os.environ, **folder},
            log=self._home.log("up"),
            stop_seconds=_STOP_SECONDS,
        )

    async def start(self) -> StackDescription:
        """Start it and return when everything is ready. Raises CommandError, in its own words, when it does not start."""
        self._home.prepare()
        await self._child.start()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not self._is_ready():
                    if self._child.pid is None:
                        raise self._failed()
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise self._failed() from None
        return self._description()

    async def stop(self) -> None:
        """End it."""
        self.release()
        await self._child.stop()

    @property
    def admin_url(self) -> str:
        """Where its Postgres's administrator connects."""
        return EmbeddedPostgres(self._home, self._description().postgres_port or 0).admin_url

    def hold(self) -> None:
        """Have every process of it stand still, those too that are begun meanwhile: it costs nothing until it is released."""
        held: set[int] = set()
        while new := [process for process in self._family() if process.pid not in held]:
            for process in new:
                held.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.suspend()

    def release(self) -> None:
        """Let it go on."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _family(self) -> list[psutil.Process]:
        """All but the one that watches over them, which does nothing."""
        if self._child.pid is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._child.pid).children(recursive=True)
        return []

    def _is_ready(self) -> bool:
        return self._home.holder() == self._child.pid and self._home.read().get("phase") == "ready"

    def _description(self) -> StackDescription:
        recorded: dict[str, Any] = self._home.read()
        try:
            return StackDescription.from_json(recorded["stack"], topic_prefix=recorded.get("topic_prefix", ""))
        except (KeyError, TypeError) as error:
            raise CommandError(f"{self.name} is too old: it says of its stack nothing that is understood here") from error

    def _failed(self) -> CommandError:
        why = told_in(self._child.log_tail(_LINES)) or "it says nothing of why"
        return CommandError(f"the stack of {self.name} does not start: {why} (see {self._child.log})", ExitCode.ENVIRONMENT)


def told_in(log: str) -> str:
    """What a command said when it failed, in one line: the end of somebody else's log may follow."""
    said = [line.removeprefix(_SAYS) for line in log.splitlines() if line.startswith(_SAYS)]
    return said[-1].partition("; the end of its log:")[0] if said else ""


@asynccontextmanager
async def started(side: Side, say: Callable[[str], None]) -> AsyncIterator[StackDescription]:
    """Yield where it listens; it is stopped afterwards, whatever happens."""
    say(f"starting {side.name}: {side.revision.commit[:12]}{' and what is changed here' * side.revision.is_changed}")
    try:
        yield await side.start()
    finally:
        await side.stop()


def demand_own_servers() -> None:
    """Both stacks have servers of their own. Raises CommandError when somebody else's are named."""
    if given := [f"CARTWRIGHT_{name}" for name in _SERVERS if variable(name)]:
        raise CommandError(f"--vs starts everything twice: unset {', '.join(given)}", ExitCode.USAGE)


def _newer(revision: Revision) -> list[str]:
    return [_NEWER] if _NEWER in (revision.folder / "deploy" / "cli" / "stack.py").read_text() else []
