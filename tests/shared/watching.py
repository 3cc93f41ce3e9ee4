"""Prometheus beside a stack: whom it asks there, by which rules, and what it tells."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from deploy.local.ports import HOST, spare_port
from deploy.local.processes import Child, dying_with_parent
from deploy.local.stack import Stack
from deploy.observability.files import rules_file
from deploy.observability.rules import Pace
from deploy.observability.scraping import INSTANCES, prometheus

_INTERVAL: Final = "1s"
_PATIENCE_SECONDS: Final = 180
_LONGEST_LADDER_SECONDS: Final = 600
"""What was tried in vain a few times is tried again after minutes."""


def places(stack: Stack) -> dict[str, str]:
    """Where each process and the gateway tell their metrics."""
    ports = {f"{service}-{kind}": f"{service}.{'ops' if kind == 'api' else kind}" for service, kind in INSTANCES}
    if stack.description().gateway_url:
        ports["gateway"] = "gateway.ops"
    return {name: f"{HOST}:{stack._ports[port]}" for name, port in ports.items()}


@dataclass(frozen=True)
class Watch:
    """A Prometheus that runs."""

    url: str
    session: aiohttp.ClientSession

    async def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire at this moment."""
        async with self.session.get(f"{self.url}/api/v1/alerts") as answer:
            told: dict[str, Any] = await answer.json()
        return [each for each in told["data"]["alerts"] if each["state"] == "firing"]

    async def has_fired(self, alert: str, seconds: float) -> bool:
        """Whether it did at any moment of the last seconds: some are over while the next thing is still asked."""
        history = f'ALERTS{{alertname="{alert}",alertstate="firing"}}[{max(1, round(seconds))}s]'
        async with self.session.get(f"{self.url}/api/v1/query", params={"query": history}) as answer:
            told: dict[str, Any] = await answer.json()
        return bool(told["data"]["result"])

    async def until_fired(self, alert: str, since: float) -> list[dict[str, Any]]:
        """Return when it fires, with how, or if it has since then (`time.monotonic`)."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            found = [each for each in await self.firing() if each["labels"]["alertname"] == alert]
            if found or await self.has_fired(alert, time.monotonic() - since):
                return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"{alert} does not fire")

    async def until_quiet(self, alert: str) -> None:
        """Return when it does not fire."""
        end = time.monotonic() + _LONGEST_LADDER_SECONDS
        while found := [each for each in await self.firing() if each["labels"]["alertname"] == alert]:
            assert time.monotonic() < end, f"still fires: {found}"
            await asyncio.sleep(0.2)


@asynccontextmanager
async def watched(program: Path, folder: Path, targets: Mapping[str, str], pace: Pace) -> AsyncIterator[Watch]:
    """Run it with the rules at this pace."""
    rules, port = folder / "rules.yaml", spare_port()
    rules.write_text(rules_file(pace), encoding="utf-8")
    config = prometheus(targets, rules=str(rules), interval=_INTERVAL, timeout=_INTERVAL)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    told = ["--config.file", folder / "prometheus.yaml", "--storage.tsdb.path", folder / "data", "--log.level", "warn"]
    command = [*dying_with_parent("KILL"), program, *told, "--web.listen-address", f"{HOST}:{port}"]
    child = Child("prometheus", list(map(str, command)), environment={"PATH": os.defpath}, log=folder / "prometheus.log")
    await child.start()
    try:
        await child.until_ready(f"http://{HOST}:{port}/-/ready", seconds=120)
        async with aiohttp.ClientSession() as session:
            yield Watch(f"http://{HOST}:{port}", session)
    finally:
        await child.stop()
