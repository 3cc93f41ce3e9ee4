"""`sources`: which publishers are paused, for whom; pausing them by hand, and letting them go on."""

from typing import Any

from deploy.cli.api import Api, RefusedError
from deploy.cli.errors import CommandError, ExitCode
from deploy.cli.output import print_json
from deploy.cli.repair import of_workers, services, with_operator

NOT_FOUND = 404


def show(*, service: str | None, json: bool) -> int:
    """Print every source that is paused or catching up; 1 when one is paused."""
    items = with_operator(lambda api, token: of_workers(api, token, service, "GET", "/ops/sources", member="items"))
    if json:
        print_json({"items": items})
    else:
        for each in items:
            whose = each["tenant_id"] or "no tenant to believe"
            print(f"{each['group']:<20} {each['state']:<9} {each['source']} for {whose}: {each['held_back']} held back")
            print(f"{'':<20} since {each['paused_at']} by {each['paused_by']}: {each['reason']}")
        print(f"{len(items)} sources are paused or catching up")
    return ExitCode.NOT_SO if any(each["state"] == "paused" for each in items) else ExitCode.DONE


def decide(*, action: str, source: str, tenant: str | None, service: str | None, body: dict[str, Any], json: bool) -> int:
    """Pause or resume one source of one tenant."""

    async def run(api: Api, token: str) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        asked = {"source": source, **({"tenant_id": tenant} if tenant else {}), **body}
        for name in services(api.stack, service):
            try:
                path, member = f"/ops/sources/{action}", f"{action}d"
                done += await of_workers(api, token, name, "POST", path, member=member, body=asked)
            except RefusedError as error:
                if error.status != NOT_FOUND:
                    raise
        if not done:
            raise CommandError("no such source is paused: see ./cartwright sources list")
        return done

    done = with_operator(run)
    if json:
        print_json({"items": done})
    else:
        for each in done:
            print(f"{each['group']:<20} {each['source']} is {each['state']}")
    return ExitCode.DONE
