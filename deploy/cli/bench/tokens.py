"""How many access tokens one process of identity grants, and what it costs a service to believe one.

The API process has one core for itself, as far as the machine has two; the database and who asks share the rest. It is asked
over HTTP for client-credential grants, each with the look-up of the client and a signature, as in production. Beside it, in
the same run: bare ES256 signatures. Of a machine that others use too, the CPU a grant tells more than the rate.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import orjson
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.cli.api import Api, connected
from deploy.cli.bench.figures import machine, settle
from deploy.cli.bench.report import print_figures
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.replay.cpu import cpu_seconds
from deploy.cli.tenants import CLIENT_SCOPES, operator
from deploy.local.stack import Stack
from deploy.local.state import default_home
from libs.common.auth import CLIENT, ROLES, Verifier
from libs.common.certificates import RootKey, Roots
from libs.common.clock import now
from libs.common.keys import Keys
from libs.common.revocations import Revocations
from services.identity.api.tokens import TokenMint, jwk_of
from services.identity.domain.access import Grant

CONNECTIONS: Final = 16
WARM_UP: Final = 500
SIGNED: Final = 5_000
VERIFIED: Final = 2_000
REPEATED: Final = 50_000
ROUNDS: Final = 5
_ISSUER: Final = "http://bench"
_UNLIMITED: Final = "1000000/1000000"
_MICRO: Final = 1e6
_API, _DATABASE = "identity.api", "postgres"


class Asker:
    """One connection that asks for the same grant again and again, with next to nothing around it."""

    def __init__(self, url: str, form: dict[str, str]) -> None:
        parts, body = urlsplit(url), urlencode(form).encode()
        self._host, self._port = parts.hostname, parts.port
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def ask(self, goes_on: Callable[[], bool]) -> None:
        """Ask as long as it goes on. Raises CommandError for anything but a token."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            while goes_on():
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise CommandError(f"a grant was refused: {body.decode()[:200]}")
        finally:
            writer.close()


async def granted(url: str, form: dict[str, str], count: int) -> float:
    """Ask for so many grants over all connections; answers the seconds."""
    left = count

    def goes_on() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(Asker(url, form).ask(goes_on))
    return time.perf_counter() - begun


async def a_client(api: Api) -> dict[str, str]:
    """A tenant's client, as the form in which it asks for a token."""
    token = await operator(api).token()
    slug = f"bench-{uuid4().hex[:12]}"
    body = {"slug": slug, "name": slug, "currency": "GBP", "country": "GB", "admin_email": "a@bench.test"}
    tenant = (await api.call("identity", "POST", "/v1/tenants", token=token, body=body, key=slug)).body
    wanted = {"name": slug, "scopes": list(CLIENT_SCOPES), "tenant_id": tenant["tenant_id"]}
    made = (await api.call("identity", "POST", "/v1/clients", token=token, body=wanted, key=slug)).body
    return {"grant_type": "client_credentials", "client_id": made["client_id"], "client_secret": made["client_secret"]}


@asynccontextmanager
async def open_identity(say: Callable[[str], None]) -> AsyncIterator[tuple[Stack, Api]]:
    """A fresh stack of identity alone, gone afterwards; nobody is limited."""
    home = default_home() / "bench"
    shutil.rmtree(home, ignore_errors=True)
    os.environ.setdefault("CARTWRIGHT_RATE_PER_ADDRESS", _UNLIMITED)
    stack = Stack(home, services=("identity",), stripe_api_base="http://127.0.0.1:9", stripe_api_key="none", say=say)
    async with stack, connected(stack.description()) as api:
        yield stack, api


def _alone(stack: Stack) -> None:
    """Give the API process the first core, and the rest of the machine to everybody else."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        pids = stack.pids()
        os.sched_setaffinity(pids[_API], cores[:1])
        for pid in (os.getpid(), *(pid for name, pid in pids.items() if name != _API)):
            os.sched_setaffinity(pid, cores[1:])


async def measure_grants(seconds: float, say: Callable[[str], None]) -> dict[str, float]:
    """Rounds of grants; the best one counts for the rate, all for the CPU."""
    async with open_identity(say) as (stack, api):
        form, url = await a_client(api), f"{stack.description().services['identity'].url}/oauth/token"
        _alone(stack)
        await granted(url, form, WARM_UP)
        count = max(WARM_UP, int(seconds / ROUNDS * WARM_UP / await granted(url, form, WARM_UP)))
        before, rates = cpu_seconds(stack.home.path), []
        for _ in range(ROUNDS):
            rates.append(count / await granted(url, form, count))
            say(f"{rates[-1]:,.0f} grants a second")
        after = cpu_seconds(stack.home.path)
    used = {name: (after[name] - before[name]) / (count * ROUNDS) * _MICRO for name in (_API, _DATABASE)}
    return {
        "grants_per_second": round(max(rates)),
        "api_cpu_us_per_grant": round(used[_API]),
        "database_cpu_us_per_grant": round(used[_DATABASE]),
        "grants_per_second_of_cpu": round(_MICRO / used[_API]),
    }


def _timed(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU each, in the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        settle()
        begun = time.process_time()
        work()
        best = min(best, (time.process_time() - begun) / count * _MICRO)
    return best


def measure_signing() -> float:
    """Bare ES256 signatures a second of CPU."""
    key, said, algorithm = ec.generate_private_key(ec.SECP256R1()), b"x" * 600, ec.ECDSA(SHA256())

    def sign() -> None:
        for _ in range(SIGNED):
            key.sign(said, algorithm)

    return _MICRO / _timed(sign, SIGNED)


async def measure_verification() -> dict[str, float]:
    """What a token costs that was never seen before, and one that was: epochs included, of which there are some."""
    root, key = RootKey(_ISSUER, ec.generate_private_key(ec.SECP256R1())), ec.generate_private_key(ec.SECP256R1())
    jwk = jwk_of(key)
    mint, grant = TokenMint(_ISSUER, jwk["kid"], key), _grant()
    revocations = Revocations()
    for _ in range(1_000):
        revocations.learn("client", str(uuid4()), int(time.time() * 1_000))
    tokens = [mint.mint(grant, uuid4(), datetime.now(UTC)) for _ in range(VERIFIED)]

    async def all_of(verifier: Verifier, tokens: list[str], times: int) -> None:
        for _ in range(times):
            for token in tokens:
                await verifier.verify(token)

    def fresh() -> Verifier:
        keys = Keys(f"{_ISSUER}/nobody", Roots(_ISSUER, orjson.dumps(root.public).decode()))
        keys.learn(jwk, root.certify(jwk, now()))
        revocations.read_to_its_end()
        return Verifier(keys, revocations, issuer=_ISSUER, audience="cart")

    loop = asyncio.get_running_loop()
    uncached = await loop.run_in_executor(None, lambda: _timed(lambda: asyncio.run(all_of(fresh(), tokens, 1)), VERIFIED))
    seen, some = fresh(), tokens[:100]
    await all_of(seen, some, 1)
    times = REPEATED // len(some)
    cached = await loop.run_in_executor(None, lambda: _timed(lambda: asyncio.run(all_of(seen, some, times)), REPEATED))
    return {"verify_cached_us": round(cached, 2), "verify_uncached_us": round(uncached, 1)}


def _grant() -> Grant:
    return Grant(subject_id=uuid4(), client_id=f"cl_{uuid4().hex}", tenant_id=uuid4(), roles=(CLIENT,), permissions=ROLES[CLIENT])


async def bench_tokens(seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Grants, bare signatures, verifications: in one run."""
    raw = measure_signing()
    say(f"{raw:,.0f} bare signatures a second of CPU")
    verified = await measure_verification()
    grants = await measure_grants(seconds, say)
    ratio = round(grants["grants_per_second"] / raw, 4)
    return {**grants, "raw_signatures_per_second": round(raw), "ratio_to_raw_signing": ratio, **verified, "machine": machine()}


def run_tokens(seconds: float, *, json: bool) -> int:
    """Measure, and print the figures."""
    figures = uvloop.run(bench_tokens(seconds, progress()))
    if json:
        print_json(figures)
    else:
        print_figures(figures)
    return ExitCode.DONE
