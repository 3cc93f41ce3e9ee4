"""Clients that others' tools make of our OpenAPI document buy, refund and list: nothing in them knows our API otherwise."""

import asyncio
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import reference
from deploy.cli.tenants import Wish, onboarded
from deploy.local.state import ROOT
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

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


async def _given(market: Market) -> dict[str, str]:
    """What whoever is given an account is told."""
    found = await onboarded(market.api, Wish.of("generated-clients"))
    address = market.api.stack.gateway_url
    if address is None:
        pytest.skip("not proven: generated clients and the guides buy through the gateway (there is no Envoy for this platform)")
    client = {"client_id": found.client.client_id, "client_secret": found.client.secret()}
    return {"address": address, "tenant_id": str(found.tenant_id), **client}


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
    told = await asyncio.to_thread(_run, python, tmp_path / "buy.py", given=json.dumps(await _given(market)))
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
    told = await asyncio.to_thread(_run, node, "buy.js", cwd=tmp_path, env={"GIVEN": json.dumps(await _given(market))})
    _has_sold(told, 102)


GUIDED = "http://localhost:8080"
"""The address that `./cartwright up` names where nothing else has the port."""


def _blocks(page: str) -> str:
    """The code of a guide, block after block, as one program."""
    text = (reference.PAGES / page).read_text(encoding="utf-8")
    return "\n".join(html.unescape(block) for block in re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL))


async def _as_guided(market: Market, page: str) -> str:
    given, code = await _given(market), _blocks(page)
    said = {GUIDED: given["address"], "YOUR_TENANT_ID": given["tenant_id"]}
    said |= {"YOUR_CLIENT_ID": given["client_id"], "YOUR_CLIENT_SECRET": given["client_secret"]}
    for words, meant in said.items():
        code = code.replace(words, meant)
    return code


async def test_what_the_guide_for_a_shop_says_buys(market: Market, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("not proven: the code of the guide for a shop (there is no node)")
    (tmp_path / "shop.mjs").write_text(await _as_guided(market, "start-shop.html"), encoding="utf-8")
    said = await asyncio.to_thread(_run, node, tmp_path / "shop.mjs")
    assert "coupon-unknown" in said
    assert "confirmed" in said
    shop = (await onboarded(market.api, Wish.of("generated-clients"))).shop(market.api)
    tenth = {"name": "A tenth off", "kind": "percentage", "percent": "10", "requires_coupon": True}
    await market.api.call("cart", "PUT", "/v1/promotions/WELCOME10", token=await shop.token(), body=tenth)
    said = await asyncio.to_thread(_run, node, tmp_path / "shop.mjs")
    assert "WELCOME10 applies" in said
    assert "A tenth off: " in said
    assert "confirmed" in said


async def test_what_the_guide_for_an_integrator_says_gives_money_back(market: Market, tmp_path: Path) -> None:
    shopper = market.shop.shopper("customer:guided")
    cart_id = await market.cart(shopper, {"SKU-3": 1})
    started = await shopper.check_out(cart_id, key="guided", method="pm_card_visa", wait_seconds=20)
    assert (await shopper.outcome(started, patience_seconds=240))["state"] == "confirmed"
    (tmp_path / "integrator.py").write_text(await _as_guided(market, "start-integrator.html"), encoding="utf-8")
    said = await asyncio.to_thread(_run, sys.executable, tmp_path / "integrator.py")
    assert "refunded" in said
    assert "nothing twice" in said
