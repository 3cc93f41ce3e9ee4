"""Clients that others' tools make of our OpenAPI document buy, refund and list: nothing in them knows our API otherwise."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import reference
from deploy.cli.tenants import Wish, onboarded
from deploy.composition import parts_of
from deploy.local.state import ROOT
from libs.common.processes.api import api_app
from services import SERVICES
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPTS = Path(__file__).parent / "clients"
LOCK = ROOT / "requirements" / "clients.txt"
TOOLS = ("openapi-typescript", "openapi-fetch", "typescript")


def _run(*command: str | Path, given: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)),
        input=given,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command[:3]}: {done.stdout[-4_000:]}{done.stderr[-4_000:]}"
    return done.stdout


async def _given(market: Market) -> str:
    """What whoever is given an account is told, and the doors that stand behind one address."""
    found = await onboarded(market.api, Wish.of("market"))
    doors = {
        segment: market.api.stack.url(service)
        for service in SERVICES
        for path in api_app(service, parts_of(service).routes).openapi()["paths"]
        for segment in path.strip("/").split("/")[:2]
        if segment != "v1"
    }
    secret = found.client.secret()
    client = {"client_id": found.client.client_id, "client_secret": secret}
    return json.dumps({"doors": doors, "tenant_id": str(found.tenant_id), **client})


def _has_sold(told: str, unit_minor: int) -> None:
    story: dict[str, Any] = json.loads(told)
    assert story["number"] > 0
    assert (story["total"], story["refunded"]) == (2 * unit_minor, unit_minor)


async def test_a_client_made_by_openapi_python_client_buys_refunds_and_lists(market: Market, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    python, tool = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "openapi-python-client"

    def generate() -> str:
        _run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
        _run(uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", LOCK)
        made = tmp_path / "cartwright_client"
        path = {"PATH": f"{tool.parent}:{os.environ['PATH']}"}
        return _run(
            tool, "generate", "--path", reference.PAGES / "openapi.json", "--output-path", made, "--meta", "none", env=path
        )

    said = await asyncio.to_thread(generate)
    assert "Unable" not in said
    left_out = [line for line in said.splitlines() if line.startswith("WARNING")]
    assert all("-exports/" in line for line in left_out), "nothing but files to take away, which it has no word for"
    shutil.copy(SCRIPTS / "buy.py.txt", tmp_path / "buy.py")
    told = await asyncio.to_thread(_run, python, tmp_path / "buy.py", given=await _given(market))
    _has_sold(told, 101)


def _node_modules() -> Path | None:
    for folder in map(Path, filter(None, os.environ.get("NODE_PATH", "").split(":"))):
        if all((folder / tool).is_dir() for tool in TOOLS):
            return folder
    return None


async def test_a_client_of_openapi_fetch_and_generated_types_compiles_buys_refunds_and_lists(
    market: Market, tmp_path: Path
) -> None:
    node, modules = shutil.which("node"), _node_modules()
    if node is None or modules is None:
        pytest.skip(f"not proven: a TypeScript client buys (node with {', '.join(TOOLS)} on its NODE_PATH)")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(SCRIPTS / "buy.ts", tmp_path / "buy.ts")

    def compile_it() -> None:
        document, types = reference.PAGES / "openapi.json", tmp_path / "cartwright.d.ts"
        _run(modules / ".bin" / "openapi-typescript", document, "-o", types, "--default-non-nullable=false", cwd=tmp_path)
        options = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--lib", "es2022,dom")
        _run(modules / ".bin" / "tsc", *options, "buy.ts", cwd=tmp_path)

    await asyncio.to_thread(compile_it)
    told = await asyncio.to_thread(_run, node, "buy.js", cwd=tmp_path, env={"GIVEN": await _given(market)})
    _has_sold(told, 102)
