"""`gateway config`: the files of a gateway that stands elsewhere than in the local stack."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.errors import CommandError, ExitCode, verb
from deploy.gateway.declared import committed
from deploy.gateway.files import BOOTSTRAP, configuration, write
from deploy.gateway.plan import Certificates, Plan, Upstream
from deploy.local.ports import DEFAULT_PORTS
from services import SERVICES

Places = Annotated[
    list[str] | None,
    typer.Option("--service", metavar="NAME=HOST:PORT:OPS_PORT", help="Where a service is; several times for several places."),
]


@verb
def config(
    folder: Annotated[Path, typer.Argument(help="Where the files are to lie.")],
    *,
    services: Places = None,
    host: Annotated[str, typer.Option(help="Where it listens; `::` is everywhere.")] = "::",
    port: Annotated[int, typer.Option(help="Its port.")] = 8443,
    watched_port: Annotated[
        int, typer.Option(help="Answer `/ready` and `/stats/prometheus` there, to whoever reaches it; 0: nowhere.")
    ] = 0,
    certificate: Annotated[Path | None, typer.Option(help="The certificate's chain (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    http3: Annotated[bool, typer.Option("--http3", help="Speak HTTP/3 too.")] = False,
    issuer: Annotated[str, typer.Option(help="CARTWRIGHT_ISSUER of the services.")] = "",
    trusted_hops: Annotated[int, typer.Option(help="So many proxies of yours stand before it.")] = 0,
) -> None:
    """Write a gateway's configuration.

    Run again, it replaces the files: an Envoy that runs takes them up.
    """
    if (certificate is None) != (key is None) or (http3 and certificate is None):
        raise CommandError("--certificate and --key belong together, and --http3 needs both", ExitCode.USAGE)
    plan = Plan(
        services=_places(services or []),
        folder=folder.resolve(),
        host=host,
        port=port,
        ops_port=DEFAULT_PORTS["gateway.ops"],
        watched_port=watched_port,
        issuer=issuer,
        certificates=Certificates(certificate.resolve(), key.resolve()) if certificate and key else None,
        has_http3=http3,
        trusted_hops=trusted_hops,
    )
    write(configuration(plan, committed()), plan.folder)
    print(f"envoy -c {plan.folder / BOOTSTRAP}")


def _places(given: list[str]) -> dict[str, list[Upstream]]:
    """Each service by its own name and ports, unless it is said to be elsewhere."""
    found: dict[str, list[Upstream]] = {}
    for each in given:
        name, _, place = each.partition("=")
        host, port, ops_port = [*place.rsplit(":", 2), "", ""][:3]
        if name not in SERVICES or not (host and port.isdecimal() and ops_port.isdecimal()):
            raise CommandError(f"--service {each} is not one of {', '.join(SERVICES)}=HOST:PORT:OPS_PORT", ExitCode.USAGE)
        found.setdefault(name, []).append(Upstream(host, int(port), int(ops_port)))
    return {name: found.get(name) or [_usual(name)] for name in SERVICES}


def _usual(service: str) -> Upstream:
    return Upstream(service, DEFAULT_PORTS[f"{service}.api"], DEFAULT_PORTS[f"{service}.ops"])
