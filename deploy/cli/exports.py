"""`tenants export`: all that is kept of a tenant, a file a service, each held against its own last line."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from deploy.cli.api import Api, connected
from deploy.cli.deployment import deployment
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json, progress
from deploy.cli.standing import tenant_id_of
from deploy.cli.tenants import operator

MANIFEST: Final = "manifest.json"
_CHUNK_BYTES: Final = 1 << 16
_SECONDS: Final = 3_600
_OK: Final = 200


def export(*, slug: str, folder: Path, json: bool) -> int:
    """Take it away; 1 when a part did not come whole."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> dict[str, Any]:
        async with deployment(progress()) as stack, connected(stack) as api:
            return await exported(api, await tenant_id_of(api, slug), folder)

    told = asyncio.run(run())
    if json:
        print_json(told)
    else:
        for part in told["parts"]:
            print(f"{part['file']:<16} {sum(part['counts'].values()):>8} rows  {part['file_sha256']}")
        print(f"{slug} is {told['status']}: {folder / MANIFEST} says so too")
    return ExitCode.DONE


async def exported(api: Api, tenant_id: str, folder: Path) -> dict[str, Any]:
    """Write every part and the manifest of them all. Raises CommandError when a part is not what its last line says."""
    token = await operator(api).token()
    known: dict[str, Any] = (await api.call("identity", "GET", f"/v1/tenants/{tenant_id}/export", token=token)).body
    told = {"tenant_id": tenant_id, "status": known["status"], "parts": list[dict[str, Any]]()}
    for part in known["parts"]:
        file = folder / f"{part['service']}.jsonl"
        await _fetched(f"{api.stack.services[part['service']].url}{part['path']}", token, file)
        told["parts"].append({"file": file.name, **_checked(file)})
    _keep(folder / MANIFEST, told)
    return told


def _keep(file: Path, told: dict[str, Any]) -> None:
    file.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")


async def _fetched(url: str, token: str, file: Path) -> None:
    headers, timeout = {"Authorization": f"Bearer {token}"}, aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, session.get(url) as answer:
        if answer.status != _OK:
            raise CommandError(f"{url} was answered {answer.status}: {await answer.text()}", ExitCode.NOT_SO)
        with file.open("xb") as out:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                out.write(chunk)


def _checked(file: Path) -> dict[str, Any]:
    """What a part's last line says, once it is what stands before it."""
    whole, before, counts, last = hashlib.sha256(), hashlib.sha256(), Counter[str](), b""
    with file.open("rb") as lines:
        for line in lines:
            if last:
                before.update(last)
                counts[orjson.loads(last)["table"]] += 1
            whole.update(line)
            last = line
    told: dict[str, Any] = orjson.loads(last).get("manifest", {}) if last.endswith(b"\n") else {}
    if told.get("sha256") != before.hexdigest() or {name: count for name, count in told["counts"].items() if count} != counts:
        raise CommandError(f"{file} did not come whole: delete it and export again", ExitCode.NOT_SO)
    return {**told, "file_sha256": whole.hexdigest()}
