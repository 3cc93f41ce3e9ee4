"""Where the local stack keeps its state may have any name that a folder can have."""

from pathlib import Path

import asyncpg
import pytest

from deploy.local.infrastructure import PORTS, Infrastructure
from deploy.local.kafka.client import ready
from deploy.local.ports import choose_ports
from deploy.local.stack import Stack
from deploy.local.state import Home
from deploy.local.topics import create_topics, declared_topics


async def test_both_servers_run_in_a_folder_whose_name_is_not_ascii(admin_url: str, tmp_path: Path) -> None:
    assert admin_url  # that there is one says that servers of our own run here
    home = Home(tmp_path / "Läden 東京 🛒 \\ 'x'")
    home.prepare()
    servers = Infrastructure(home, choose_ports(PORTS, {}, print, spread=True))
    for _ in range(2):  # made, and found again
        await servers.start()
        try:
            connection = await asyncpg.connect(servers.admin_url)
            assert str(home.path) in await connection.fetchval("SHOW data_directory")
            await connection.close()
            await ready(**servers.broker_admin(), seconds=60)
            await create_topics(topics=declared_topics(), **servers.broker_admin())
        finally:
            await servers.stop()
    assert {path.name for path in (home.path / "kafka" / "data").glob("cart.v1-*")} == {"cart.v1-0", "cart.v1-1", "cart.v1-2"}


def test_a_prefix_that_the_user_sets_stands_before_a_stacks_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTWRIGHT_TOPIC_PREFIX", "eu.")
    assert Stack.from_environment(tmp_path)._prefixes == ("", "eu.")
