"""A real API server of Kubernetes: built of Go modules, run on the loopback with a home of its own, and asked as Helm asks."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from deploy.local.ports import HOST, spare_port
from deploy.local.processes import Child, dying_with_parent
from tests.shared.certificates import Authority

MODULE: Final = Path(__file__).with_name("cluster")
PROGRAMS: Final = {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"}
_TOKEN: Final = "installer"
_PATIENCE_SECONDS: Final = 600
"""So long a server may take to come up, and to act upon what it was told: the machine may be busy."""

Manifest = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """To which a bare `=` is a text, as it is to Kubernetes."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


class RefusedError(Exception):
    """The API server will not have it."""


@dataclass(frozen=True)
class Taken:
    """An object as it is kept, and what the server has to say about what was asked."""

    kept: Manifest
    warnings: tuple[str, ...]

    @property
    def version(self) -> str:
        """Another one with every change."""
        return str(self.kept["metadata"]["resourceVersion"])

    @property
    def seen(self) -> Manifest:
        """All of it but that."""
        metadata = {name: value for name, value in self.kept["metadata"].items() if name != "resourceVersion"}
        return self.kept | {"metadata": metadata}


@dataclass
class ApiServer:
    """One that runs."""

    client: httpx.AsyncClient
    _kinds: dict[str, dict[str, Manifest]] = field(default_factory=dict)

    async def apply(self, part: Manifest, namespace: str | None = None, *, dry: bool = False, status: bool = False) -> Taken:
        """Apply it as Helm does, on the server's side, with every field that it does not know refused."""
        resource = await self._resource(part["apiVersion"], part["kind"])
        where = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        path = f"{_group(part['apiVersion'])}{where}/{resource['name']}/{part['metadata']['name']}{'/status' if status else ''}"
        chosen = {"fieldManager": "installer", "force": "true", "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        headers = {"Content-Type": "application/apply-patch+yaml"}
        answer = await self.client.patch(path, params=chosen, headers=headers, content=json.dumps(part))
        if answer.is_error:
            raise RefusedError(answer.json()["message"])
        return Taken(answer.json(), tuple(answer.headers.get_list("Warning")))

    async def delete(self, part: Manifest, namespace: str) -> None:
        """Take it away, and what belongs to it."""
        resource = await self._resource(part["apiVersion"], part["kind"])
        path = f"{_group(part['apiVersion'])}/namespaces/{namespace}/{resource['name']}/{part['metadata']['name']}"
        (await self.client.delete(path, params={"propagationPolicy": "Background"})).raise_for_status()

    async def define(self, definition: Manifest) -> None:
        """Extend it, and wait until it knows what is defined."""
        await self.apply(definition)
        spec = definition["spec"]
        for version in (each["name"] for each in spec["versions"] if each["served"]):
            await self._until(partial(self._resource, f"{spec['group']}/{version}", spec["names"]["kind"]))

    async def namespace(self, name: str, *parts: Manifest, good: Manifest, bad: Manifest) -> str:
        """Make a namespace with these parts in it, and wait until they hold: a good pod is taken there and a bad one is not."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
        await self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        for part in parts:
            await self.apply(part, name)
            if "hard" in part.get("spec", {}):  # as the controller would, of which there is none
                hard = part["spec"]["hard"]
                await self.apply(part | {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}, name, status=True)
        await self._until(partial(self.apply, good, name, dry=True))
        await self._until(partial(self._refuses, bad, name))
        return name

    async def _refuses(self, part: Manifest, namespace: str) -> None:
        try:
            await self.apply(part, namespace, dry=True)
        except RefusedError:
            return
        raise RefusedError(f"{part['metadata']['name']} is taken")

    async def _until(self, step: Callable[[], Awaitable[object]]) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                await step()
            except RefusedError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def _resource(self, version: str, kind: str) -> Manifest:
        known = self._kinds.get(version, {})
        if kind not in known:
            answer = await self.client.get(_group(version))
            said = answer.json().get("resources", []) if answer.is_success else []
            known = self._kinds[version] = {each["kind"]: each for each in said if "/" not in each["name"]}
        if kind not in known:
            raise RefusedError(f"no matches for kind {kind} in {version}")
        return known[kind]


@asynccontextmanager
async def running(programs: Path, folder: Path) -> AsyncIterator[ApiServer]:
    """Start both, with everything they keep below this folder, and end both."""
    authority = Authority(folder / "certificates", "cluster")
    token = folder / "tokens.csv"
    token.write_text(f"{_TOKEN},installer,1,system:masters\n")
    kept, port = spare_port(), spare_port()
    trusted = ssl.create_default_context(cafile=str(authority.file))
    async with AsyncExitStack() as open_things:
        etcd = await open_things.enter_async_context(_child("etcd", programs, folder, _etcd(folder, kept)))
        own = await open_things.enter_async_context(
            _child("kube-apiserver", programs, folder, _api_server(folder, authority, token, f"http://{HOST}:{kept}", port))
        )
        client = httpx.AsyncClient(
            base_url=f"https://{HOST}:{port}",
            headers={"Authorization": f"Bearer {_TOKEN}"},
            verify=trusted,
            timeout=_PATIENCE_SECONDS,
            trust_env=False,
        )
        await _until_ready(await open_things.enter_async_context(client), etcd, own)
        yield ApiServer(client)


def built(cache: Path) -> Path:
    """The folder with both programs, built unless they are there. Skips where there is no Go."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("not proven: an API server takes the chart (Go is not installed, of whose modules one is built)")
    known = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in PROGRAMS.items():
            if not (cache / known / name).exists():
                _build(go, package, cache / known / name)
    return cache / known


def _build(go: str, package: str, program: Path) -> None:
    """By what go.sum has locked alone; a program that is there is whole."""
    fresh = program.with_suffix(".new")
    command = [go, "build", "-mod=readonly", "-trimpath", "-o", str(fresh), package]
    environment = os.environ | {"CGO_ENABLED": "0"}
    done = subprocess.run(command, cwd=MODULE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{package}: {done.stdout[-4_000:]}{done.stderr[-4_000:]}"
    fresh.replace(program)


def _etcd(folder: Path, port: int) -> Mapping[str, str]:
    peers = f"http://{HOST}:{spare_port()}"
    return {
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": f"http://{HOST}:{port}",
        "advertise-client-urls": f"http://{HOST}:{port}",
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",
    }


def _api_server(folder: Path, authority: Authority, token: Path, etcd: str, port: int) -> Mapping[str, str]:
    own = authority.certify("kube-apiserver")
    return {
        "etcd-servers": etcd,
        "bind-address": HOST,
        "secure-port": str(port),
        "cert-dir": str(folder),
        "tls-cert-file": str(own.certificate),
        "tls-private-key-file": str(own.key),
        "service-account-issuer": f"https://{HOST}",
        "service-account-key-file": str(own.certificate),
        "service-account-signing-key-file": str(own.key),
        "service-cluster-ip-range": "10.0.0.0/16",
        "token-auth-file": str(token),
        "anonymous-auth": "false",
        "authorization-mode": "RBAC",
        "endpoint-reconciler-type": "none",
    }


@asynccontextmanager
async def _child(name: str, programs: Path, folder: Path, options: Mapping[str, str]) -> AsyncIterator[Child]:
    command = [*dying_with_parent("KILL"), str(programs / name), *(f"--{key}={value}" for key, value in options.items())]
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    child = Child(name, command, environment=environment, log=folder / f"{name}.log")
    await child.start()
    try:
        yield child
    finally:
        await child.kill()


async def _until_ready(client: httpx.AsyncClient, *children: Child) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        for child in children:
            assert child.pid, child.ended()
        try:
            if (await client.get("/readyz")).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "\n".join(child.log_tail() for child in children)
        await asyncio.sleep(0.2)


def objects_of(file: Path) -> list[Manifest]:
    """What is in a file of Kubernetes'."""
    return [part for part in yaml.load_all(file.read_text(encoding="utf-8"), _Loader) if part]


def pods_of(parts: list[Manifest]) -> Iterator[Manifest]:
    """The pods that controllers would make of these parts: what is enforced of pods is enforced of these alone."""
    for part in parts:
        if part["kind"] in ("Deployment", "Job"):
            template = part["spec"]["template"]
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                **template,
                "metadata": template["metadata"] | {"name": part["metadata"]["name"]},
            }


def _group(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
