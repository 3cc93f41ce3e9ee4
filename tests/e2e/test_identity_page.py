"""docs/identity.md, run as it stands: by a shell, one block after the other, on a whole stack."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from deploy.local.state import ROOT
from tests.shared.market import Market

pytestmark = pytest.mark.asyncio(loop_scope="session")

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RESULTS = re.compile(r"^RESULT (\w+)=(.*)$", re.MULTILINE)


async def test_an_owner_lets_a_colleague_and_a_program_in_and_has_a_second_factor_as_the_page_says(
    market: Market, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    script = tmp_path / "page.sh"
    told = 'echo; for name in ada bob recovery asked; do eval "echo RESULT $name=\\$$name"; done\n'
    script.write_text("\n".join([*BLOCK.findall(page), told]), encoding="utf-8")
    (tmp_path / "cartwright").write_text(f'#!/bin/sh\nexec "{ROOT}/cartwright" "$@"\n', encoding="utf-8")
    (tmp_path / "cartwright").chmod(0o700)
    stack = market.stack
    given = {"CARTWRIGHT_HOME": str(stack.home.path), "IDENTITY": str(stack.description().services["identity"].url)}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", str(script)),
        cwd=tmp_path,
        env=os.environ | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    results = dict(RESULTS.findall(said))
    assert all(results[name] for name in ("ada", "bob", "recovery", "asked")), said
    assert "products:read\n" in said, "what the program's key came to"
    assert '"settings":{"require_totp":true}' in said.replace(" ", "")
    body = {"email": "x@shop.test", "roles": ["fulfilment"]}
    invited = await market.api.call("identity", "POST", "/v1/invitations", token=results["ada"], body=body, key="after")
    assert invited.status == 201, "the last token, got with a recovery code, is an owner's"
