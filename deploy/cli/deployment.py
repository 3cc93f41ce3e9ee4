"""Where operators' verbs work: at the deployment that `CARTWRIGHT_DEPLOYMENT` describes, or at the stack that runs here.

A description is what `status --json` prints of a stack, as far as a verb needs it: each service's address and its operators'
addresses (its API's first, a worker's last), the platform's client with the file of its secret, and for those that ask the
provider the file of a key.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from deploy.cli.errors import CommandError, ExitCode
from deploy.composition import settings_of
from deploy.local.description import StackDescription
from deploy.local.environment import PLATFORM_CLIENT_ID, variable
from deploy.local.state import Home, default_home
from services import SERVICES

_NOWHERE: Final[dict[str, Any]] = {"url": None, "ops": []}


@asynccontextmanager
async def deployment(say: Callable[[str], None], *, may_start: bool = False) -> AsyncIterator[StackDescription]:
    """Yield it. A stack is started only for what makes sense of an empty one; nobody should be told that all of that is well."""
    if file := variable("DEPLOYMENT"):
        yield described(Path(file))
        return
    home = Home(default_home())
    if home.holder() is not None:
        from deploy.local.observing import settled  # an image has no stack

        yield await settled(home, say)
        return
    if not may_start:
        raise CommandError(
            f"no stack runs in {home.path}: start it with ./cartwright up, or have CARTWRIGHT_DEPLOYMENT name the description "
            "of another deployment",
            ExitCode.ENVIRONMENT,
        )
    from deploy.local.sessions import running_stack  # nor anything that starts one

    async with running_stack(say=say) as stack:
        yield stack


def described(file: Path) -> StackDescription:
    """Read a description. Raises CommandError when it is none."""
    try:
        given: dict[str, Any] = json.loads(file.read_text())
        services = {name: {**_NOWHERE, **given["services"][name], "api": [], "workers": []} for name in SERVICES}
        client = given["platform_client"]
        return StackDescription.from_json(
            {
                "state": "running",
                "home": given.get("home") or default_home(),
                "services": services,
                "gateway": given.get("gateway"),
                "cells": {name: {"workers": {}, "ops": it["ops"]} for name, it in given.get("cells", {}).items()},
                "postgres": {"host": None, "port": None},
                "kafka": {"bootstrap_servers": None} | (given.get("kafka") or {}),
                "stripe": _provider(given.get("stripe") or {}, file.parent),
                "platform_client": {
                    "client_id": client.get("client_id", PLATFORM_CLIENT_ID),
                    "secret_file": file.parent / client["secret_file"],
                },
            },
            topic_prefix=variable("TOPIC_PREFIX") or "",
        )
    except OSError as error:
        raise CommandError(
            f"CARTWRIGHT_DEPLOYMENT names {file}, which cannot be read: {error.strerror}", ExitCode.USAGE
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise CommandError(
            f"{file} does not describe a deployment ({what}); ./cartwright status --json prints one", ExitCode.USAGE
        ) from error


def _provider(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Where the provider is, and a key of ours, if there is one: few verbs ask there."""
    file = folder / given["api_key_file"] if "api_key_file" in given else None
    key = file.read_text().strip() if file and file.exists() else None
    base = settings_of("payments").model_fields["stripe_api_base"].default if key else None
    return {"api_base": base, "api_key": key} | given
