import os
from pathlib import Path

import pytest

from libs.common.settings import PREFIX, Settings, SettingsError, variable
from tests.unit.enough import ENOUGH


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that is enough, and put back as it was afterwards: reading settings writes to it."""
    present = {name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX)}
    for name in present | {"OWNER_DATABASE_URL", *(field.upper() for field in Settings.model_fields)}:
        monkeypatch.setenv(PREFIX + name, "")
        monkeypatch.delenv(PREFIX + name)
    for name, value in ENOUGH.items():
        monkeypatch.setenv(PREFIX + name, value)
    return monkeypatch


def test_what_is_set_is_read_and_the_rest_has_defaults(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CARTWRIGHT_LOG_LEVEL", "debug")
    settings = Settings.read()
    assert settings.database_url.get_secret_value() == ENOUGH["DATABASE_URL"]
    assert (settings.http_port, settings.http_host, settings.log_level, settings.log_format) == (
        8082,
        "127.0.0.1",
        "debug",
        "json",
    )
    assert "hush" not in repr(settings), "a settings object in a log tells no password"
    with pytest.raises(ValueError, match="frozen"):
        settings.__setattr__("http_port", 1)


def test_a_value_may_stand_in_a_file_and_the_plain_name_goes_before_it(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://from-a-file\n", encoding="utf-8")
    environment.setenv("CARTWRIGHT_DATABASE_URL_FILE", str(secret))
    assert Settings.read().database_url.get_secret_value() == ENOUGH["DATABASE_URL"]
    environment.delenv("CARTWRIGHT_DATABASE_URL")
    assert Settings.read().database_url.get_secret_value() == "postgresql://from-a-file"
    environment.setenv("CARTWRIGHT_OWNER_DATABASE_URL_FILE", str(secret))
    assert variable("OWNER_DATABASE_URL") == "postgresql://from-a-file"
    assert variable("MASTER_KEY") is None


def test_a_file_that_is_not_there_is_named_with_its_variable(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("CARTWRIGHT_ISSUER")
    environment.setenv("CARTWRIGHT_ISSUER_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"^CARTWRIGHT_ISSUER_FILE names a file that cannot be read: .*absent.*$"):
        Settings.read()


@pytest.mark.parametrize("missing", [["ISSUER"], ["HTTP_PORT"], ["DATABASE_URL", "JWKS_URL"]])
def test_what_is_missing_is_said_in_one_line(environment: pytest.MonkeyPatch, missing: list[str]) -> None:
    for name in missing:
        environment.delenv(PREFIX + name)
    with pytest.raises(SettingsError) as refusal:
        Settings.read()
    message = str(refusal.value)
    assert "\n" not in message
    assert all(f"{PREFIX}{name} (" in message for name in missing)
    assert "hush" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PORT", "eighty"), ("LOG_LEVEL", "loud"), ("KAFKA_SECURITY_PROTOCOL", "NONE"), ("DRAIN_SECONDS", "soon")],
)
def test_what_is_no_such_value_is_said_in_one_line(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=rf"^set these environment variables: {PREFIX}{name} \(.*\)$"):
        Settings.read()


CELLS = "CARTWRIGHT_CELL_DATABASE_URLS"


def test_the_databases_of_other_cells_are_known_by_name_and_shown_to_nobody(environment: pytest.MonkeyPatch) -> None:
    assert Settings.read().other_cells == {}
    environment.setenv(CELLS, '{"east": "postgresql://app:hush@db/east_cart", "west2": "postgresql://app:hush@db2/cart"}')
    settings = Settings.read()
    assert settings.other_cells == {
        "east": "postgresql://app:hush@db/east_cart",
        "west2": "postgresql://app:hush@db2/cart",
    }
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    "given",
    [
        "east=postgresql://app:hush@db/cart",
        '["postgresql://app:hush@db/cart"]',
        '{"East": "postgresql://app:hush@db/cart"}',
        '{"main": "postgresql://app:hush@db/cart"}',
        '{"east": {"url": "postgresql://app:hush@db/cart"}}',
        '{"east": "postgresql://app:hush@db/cart?pooling=transaction"}',
        '{"east": "postgresql://app:hush@db/cart?pooling=often"}',
    ],
)
def test_what_names_no_other_cells_databases_is_refused_in_one_line_without_telling_it(
    environment: pytest.MonkeyPatch, given: str
) -> None:
    environment.setenv(CELLS, given)
    with pytest.raises(SettingsError, match=rf"^set these environment variables: {CELLS} \(.*\)$") as refusal:
        Settings.read()
    assert "hush" not in str(refusal.value)
