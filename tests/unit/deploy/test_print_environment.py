"""What `serve --print-environment` tells: every variable with what it is set to, and no secret."""

import pytest
import typer

from deploy.cli.services import serve

SECRET = "sk_live_do_not_tell"


def test_every_variable_is_told_and_no_secret_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CARTWRIGHT_STRIPE_API_KEY", SECRET)
    monkeypatch.setenv("CARTWRIGHT_LOG_LEVEL", "debug")
    monkeypatch.setenv("CARTWRIGHT_DATABASE_URL_FILE", "/run/secrets/a database")
    monkeypatch.delenv("CARTWRIGHT_DATABASE_URL", raising=False)
    monkeypatch.delenv("CARTWRIGHT_ISSUER", raising=False)
    with pytest.raises(typer.Exit) as ended:
        serve("payments", "worker", print_environment=True)
    assert ended.value.exit_code == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert {"CARTWRIGHT_LOG_LEVEL=debug", "CARTWRIGHT_STRIPE_API_KEY=(secret)", "# CARTWRIGHT_ISSUER is required"} <= set(lines)
    assert {"CARTWRIGHT_DATABASE_URL_FILE='/run/secrets/a database'", "# CARTWRIGHT_DRAIN_SECONDS=10"} <= set(lines)
    assert SECRET not in told
