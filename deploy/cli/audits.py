"""The verbs of `audit`; what they do is imported only when one is called."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.errors import verb


@verb
def audit_verify(
    *,
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="A slug, an id or `platform`; all of them by default.")
    ] = None,
    kept: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What an earlier --json printed, and somebody kept elsewhere.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int | None:
    """Tell whether every audit trail is as it was written.

    In all four databases; the first entry of each that was changed, added or taken away is named.
    """
    from deploy.cli import audit

    return audit.run(tenant=tenant, kept=kept, json=json)
