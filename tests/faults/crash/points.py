"""Inside a service process of the crash tests: notices every step that others can see, and dies at the one it is told to.

A step is a commit, a send to Kafka, a call to another system, or an HTTP answer; each has a moment before and one after.
They are found in the libraries underneath (asyncpg, aiokafka, aiohttp, uvicorn), which an import hook wraps while they
are loaded. So whatever a service does is found without having been registered, and the services know nothing of it.
"""

import functools
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

FOLDER = "CRASH_POINTS_FOLDER"
PROCESS = "CRASH_POINTS_PROCESS"
"""The variables that tell a process where its orders lie, and what it is called."""

ORDER = "order.json"
"""Which run it is, and the step to die at: `{"run": 7, "step": ["commit", "after", "checkout, outbox_event", 1]}`."""

STRUCK = "struck"
"""What is noted of a death in the place of a step."""

READ_ONLY = frozenset({"GET", "HEAD"})

WRITE = re.compile(
    r'\b(?:INSERT INTO|UPDATE|DELETE FROM|TRUNCATE)\s+(?!(?:OF|SET|SKIP|NOWAIT)\b)"?(\w+)"?'
    r'(?:\s+(?!SET\b)\w+)?(?:\s+SET\s+"?(\w+))?'
)
CALLED = re.compile(r"\s*SELECT\s+(\w+)\(")
HARMLESS = frozenset({"set_config", "count", "max", "min", "extract", "pg_try_advisory_lock"})
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)[a-z]{2,3}_[A-Za-z0-9_]{8,}")

Step: TypeAlias = tuple[str, str, str, int]
"""Kind, moment, name and the how manieth of these in this process in this run."""


class Watch:
    """What this process has done in the run under way."""

    def __init__(self, folder: Path, process: str) -> None:
        self._order = folder / ORDER
        self._record = os.open(folder / f"{process}.steps", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._folder = folder
        self._seen: tuple[int, int] | None = None
        self._run = 0
        self._fatal: Step | None = None
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def passes(self, kind: str, moment: str, name: str) -> None:
        """Write the step down; if it is the one, die of it as a machine does."""
        self._obey()
        self._counts[kind, moment, name] += 1
        step = (kind, moment, name, self._counts[kind, moment, name])
        os.write(self._record, (json.dumps([self._run, *step]) + "\n").encode())
        if step == self._fatal:
            # Whoever is started next must live.
            order(self._folder, self._run, None)
            os.write(self._record, (json.dumps([self._run, STRUCK]) + "\n").encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def _obey(self) -> None:
        """Look whether there is a new order, which begins a new run."""
        try:
            found = self._order.stat()
        except FileNotFoundError:
            return
        if self._seen != (found.st_ino, found.st_mtime_ns):
            self._seen = (found.st_ino, found.st_mtime_ns)
            told = json.loads(self._order.read_text())
            if told["run"] != self._run:
                self._counts.clear()
            self._run = told["run"]
            mine = told["step"] and told["process"] == os.environ[PROCESS]
            self._fatal = tuple(told["step"]) if mine else None


def order(folder: Path, run: int, process: str | None, step: Step | None = None) -> None:
    """Begin a run; if a step is given, that process is to die at it."""
    draft = folder / f"{ORDER}.{os.getpid()}"
    draft.write_text(json.dumps({"run": run, "process": process, "step": step}))
    draft.rename(folder / ORDER)


def written(sql: str) -> set[str]:
    """What a statement writes: its tables, and the column that an update begins with, which tells updates apart."""
    found = {f"{table}.{column}" if column else table for table, column in WRITE.findall(sql)}
    called = CALLED.match(sql)
    if called and called[1] not in HARMLESS:
        found.add(f"{called[1]}()")
    return found


def without_ids(path: str) -> str:
    """A path that is the same for every object."""
    return ID.sub("…", path)


# --- What is wrapped ----------------------------------------------------------------------------------------------


def _wrap_asyncpg(watch: Watch, module: ModuleType) -> None:
    """Every commit of something: the end of a transaction that wrote, or a statement on its own that does."""
    connection = module.Connection
    writes: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
    announced: WeakSet[Any] = WeakSet()
    """Where COMMIT was to ride on a statement that turned out to be new to its connection, after which it goes by itself."""

    def watched(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def run(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
            ride = getattr(self._transport, "ride", None)
            is_commit = query.startswith("COMMIT")
            if query.startswith("BEGIN") or (ride is not None and not ride.is_touched):
                writes[self] = set()
            statement = original(self, query, *arguments, **options)
            if not is_commit and (ride is not None or query.startswith("BEGIN") or self.is_in_transaction()):
                written_so_far = writes.setdefault(self, set())
                written_so_far.update(each.partition(".")[0] for each in written(query))
                if not (ride and ride.with_next):
                    return await statement
                name = ", ".join(sorted(written_so_far))
                answer = await _around(watch, "commit", name, statement, until=lambda: ride.has_ended)
                if not ride.has_ended:
                    announced.add(self)
                return answer
            committed = writes.pop(self, set()) if is_commit else written(query)
            is_announced = is_commit and self in announced
            announced.discard(self)
            return await _around(watch, "commit", ", ".join(sorted(committed)), statement, is_announced=is_announced)

        return run

    def unless_prepared(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        simple = watched(original)

        @functools.wraps(original)
        async def execute(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
            # With arguments it goes on to `_execute`, where it is watched.
            return await (original if arguments else simple)(self, query, *arguments, **options)

        return execute

    connection.execute = unless_prepared(connection.execute)
    connection._execute = watched(connection._execute)
    connection._executemany = watched(connection._executemany)


def _wrap_aiokafka(watch: Watch, module: ModuleType) -> None:
    """Every send, from before it is handed over until the broker has acknowledged it."""
    producer = module.AIOKafkaProducer

    def watched(original: Callable[..., Awaitable[Any]], topic_at: int) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def send(self: Any, *arguments: Any, **options: Any) -> Any:
            topic = re.sub(r"^\w+_[0-9a-f]{8}_", "", str(arguments[topic_at]))
            watch.passes("send", "before", topic)
            acknowledged = await original(self, *arguments, **options)
            acknowledged.add_done_callback(lambda _: watch.passes("send", "after", topic))
            return acknowledged

        return send

    producer.send = watched(producer.send, 0)
    producer.send_batch = watched(producer.send_batch, 1)


def _wrap_aiohttp(watch: Watch, module: ModuleType) -> None:
    """Every call to another system; it has acted once its answer begins."""
    session = module.ClientSession
    original = session._request

    @functools.wraps(original)
    async def request(self: Any, method: str, url: Any, **options: Any) -> Any:
        name = f"{method.upper()} {without_ids(urlsplit(str(url)).path)}"
        return await _around(watch, "call", name, original(self, method, url, **options))

    session._request = request


def _wrap_uvicorn(watch: Watch, module: ModuleType) -> None:
    """Every answer to a request that may change something; who asked again for what it reads would read the same."""
    cycle = module.RequestResponseCycle
    original = cycle.send

    @functools.wraps(original)
    async def send(self: Any, message: Any) -> None:
        is_first, is_last = message["type"] == "http.response.start", not message.get("more_body", False)
        name = f"{self.scope['method']} {without_ids(self.scope['path'])}"
        counts = self.scope["method"] not in READ_ONLY
        if counts and is_first:
            watch.passes("answer", "before", name)
        await original(self, message)
        if counts and not is_first and is_last:
            watch.passes("answer", "after", name)

    cycle.send = send


async def _around(
    watch: Watch,
    kind: str,
    name: str,
    step: Awaitable[Any],
    *,
    until: Callable[[], bool] = lambda: True,
    is_announced: bool = False,
) -> Any:
    """Take a step, if it is one; it may have begun before, and it may not be over with this."""
    if not name:
        return await step
    if not is_announced:
        watch.passes(kind, "before", name)
    taken = await step
    if until():
        watch.passes(kind, "after", name)
    return taken


WRAPPED: dict[str, Callable[[Watch, ModuleType], None]] = {
    "asyncpg.connection": _wrap_asyncpg,
    "aiokafka.producer.producer": _wrap_aiokafka,
    "aiohttp.client": _wrap_aiohttp,
    "uvicorn.protocols.http.httptools_impl": _wrap_uvicorn,
}


class _Wrapping(Loader):
    """Loads a module as it is, then wraps what it has."""

    def __init__(self, loader: Any, watch: Watch) -> None:
        self._loader, self._watch = loader, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        WRAPPED[module.__name__](self._watch, module)


class _Finder(MetaPathFinder):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def find_spec(self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in WRAPPED:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None:
            spec.loader = _Wrapping(spec.loader, self._watch)
        return spec


def install() -> None:
    """Watch this process from here on."""
    sys.meta_path.insert(0, _Finder(Watch(Path(os.environ[FOLDER]), os.environ[PROCESS])))
