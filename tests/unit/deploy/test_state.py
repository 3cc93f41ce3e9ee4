"""What lies in the state directory is its owner's alone: logs tell of people, and the rest of secrets."""

import os
from pathlib import Path

from deploy.local.state import Home, appending


def _open_to_others(folder: Path) -> list[str]:
    return [f"{path} {path.stat().st_mode & 0o777:o}" for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_what_is_made_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = Home(tmp_path / "home")
        home.prepare()
        with home.hold():
            home.secret("postgres-admin")
            home.record(a=1)
            appending(home.log("cart-api")).close()
        assert _open_to_others(home.path) == []
    finally:
        os.umask(before)


def test_what_an_earlier_release_left_open_is_closed_as_it_starts(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    for folder in ("logs", "secrets", "tenants"):
        (home.path / folder).mkdir(exist_ok=True)
        (home.path / folder).chmod(0o755)
        for name in ("cart-api.log", "cart-api.log.1"):
            (home.path / folder / name).touch()
            (home.path / folder / name).chmod(0o644)
    (home.path / "faults.json").touch(0o644)
    home.path.chmod(0o755)
    home.prepare()
    assert _open_to_others(home.path) == []


def test_root_s_postgres_may_pass_through_and_nobody_else(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.let_pass(os.getegid())
    home.prepare()
    assert home.path.stat().st_mode & 0o777 == 0o710
