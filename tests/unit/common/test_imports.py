"""What each process may load: start-up is measured in imports, and eight processes start on two cores."""

import os
import subprocess
import sys

import pytest

from services import SERVICES

HEAVY = (
    "aiohttp",
    "aiokafka",
    "alembic",
    "asyncpg",
    "fastapi",
    "faststream",
    "opentelemetry.exporter",
    "opentelemetry.sdk",
    "opentelemetry.trace",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "stripe",
    "uvicorn",
)
TRACING = {"opentelemetry.exporter", "opentelemetry.sdk", "opentelemetry.trace"}
CONFIGURE = "from libs.common.telemetry import configure_logging\nconfigure_logging('info', 'json', service='{}', process='{}')"


def _loaded(code: str, variables: dict[str, str] | None = None) -> set[str]:
    """The heavy packages among the modules that a new process has loaded after this code."""
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | (variables or {})
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split("\n")[-2].split())


def test_help_loads_nothing_heavy() -> None:
    assert (
        _loaded("from deploy.cli.main import main\nsys.argv = ['cartwright', '--help']\ntry: main()\nexcept SystemExit: pass")
        == set()
    )


@pytest.mark.parametrize("service", SERVICES)
def test_an_api_process_loads_no_faststream_no_alembic_and_no_stripe(service: str) -> None:
    configure = CONFIGURE.format(service, "api")
    loaded = _loaded(f"import services.{service}.app, services.{service}.api, libs.common.processes.api\n{configure}")
    assert "fastapi" in loaded
    # FastAPI itself loads OpenTelemetry's API, though not its SDK.
    assert not loaded & {"faststream", "alembic", "stripe", "aiohttp", *TRACING - {"opentelemetry.trace"}}


@pytest.mark.parametrize("service", SERVICES)
def test_a_worker_process_loads_no_fastapi_no_alembic_and_stripe_only_to_pay(service: str) -> None:
    jobs = "import services.payments.jobs, services.payments.gateway.stripe" if service == "payments" else ""
    loaded = _loaded(
        f"import services.{service}.app, libs.common.processes.worker\n{jobs}\n{CONFIGURE.format(service, 'worker')}"
    )
    assert "faststream" in loaded
    assert not loaded & {"fastapi", "alembic", *TRACING}
    assert ("stripe" in loaded) is (service == "payments")


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_tracing_is_loaded_when_the_standard_variables_ask_for_it_and_only_then(variables: dict[str, str], on: bool) -> None:
    loaded = _loaded(CONFIGURE.format("cart", "api"), variables)
    assert loaded & TRACING == (TRACING if on else set())
