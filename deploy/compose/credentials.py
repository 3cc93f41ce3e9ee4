"""What a system under Compose is given once: passwords, keys, and the statements that make its databases with them."""

import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.chart.examples import databases
from deploy.local.databases import ROLES
from services import SERVICES


def made(stripe_api_key: str) -> dict[str, str]:
    """Every secret by the name of its file, new each time."""
    from deploy.local.master_keys import random_key
    from deploy.local.services import new_root_key

    passwords = {f"{service}_{role}": secrets.token_hex(32) for service in SERVICES for role in ROLES}
    urls = {
        f"{service}-{_KEYS[role]}": f"postgresql://{service}_{role}:{passwords[f'{service}_{role}']}@postgres:5432/{service}"
        for service in SERVICES
        for role in ROLES
    }
    return urls | {
        "databases.sql": "\n".join([*_roles(passwords), databases()]) + "\n",
        "postgres-password": secrets.token_hex(32),
        "grafana-password": secrets.token_hex(16),
        "identity-master-key": random_key(),
        "payments-master-key": random_key(),
        "identity-issuer-root-key": new_root_key(),
        "identity-platform-client-secret": secrets.token_urlsafe(32),
        "payments-stripe-api-key": stripe_api_key,
    }


def write(folder: Path, stripe_api_key: str) -> None:
    """Make them, unless they are there: who has data has the passwords to it.

    Only the owner gets into the folder. The files themselves are open: a container reads them as another user.
    """
    from libs.common.certificates import RootKey

    kept = folder / "secrets"
    if not kept.exists():
        kept.mkdir(mode=0o700, parents=True)
        for name, value in made(stripe_api_key).items():
            (kept / name).write_text(value, encoding="utf-8")
            (kept / name).chmod(0o644)
    root = RootKey.read("", (kept / "identity-issuer-root-key").read_text(encoding="utf-8"))
    (folder / ".env").write_text(f"CARTWRIGHT_ISSUER_ROOT_PUBLIC_KEY='{json.dumps(root.public)}'\n", encoding="utf-8")


_KEYS = {"owner": "owner-database-url", "app": "database-url", "relay": "relay-database-url"}


def _roles(passwords: Mapping[str, str]) -> Iterator[str]:
    for role, password in passwords.items():
        yield f"CREATE ROLE {role} LOGIN PASSWORD '{password}';"
    yield from (f"CREATE DATABASE {service} OWNER {service}_owner;" for service in SERVICES)
