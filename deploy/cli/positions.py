"""`positions`: how far each consumer has come, and what is to be done about a log that is not the one it knew."""

from deploy.cli.errors import ExitCode
from deploy.cli.output import print_json
from deploy.cli.repair import of_workers, with_operator


def show(*, service: str | None, json: bool) -> int:
    """Print every position; 1 when a log waits to be adopted."""
    items = with_operator(lambda api, token: of_workers(api, token, service, "GET", "/ops/positions", member="items"))
    waiting = [each for each in items if each["state"] == "other-log"]
    if json:
        print_json({"items": items})
    else:
        for each in items:
            place = f"{each['topic']}[{each['partition']}]"
            print(f"{each['group']:<20} {place:<24} {each['next_offset']:>10} of {each['end_offset']} {each['detail']}")
        print(f"{len(waiting)} of {len(items)} wait to be adopted" if waiting else "every log is the one that was known")
    return ExitCode.NOT_SO if waiting else ExitCode.DONE


def adopt(*, service: str | None, reason: str, json: bool) -> int:
    """Have the logs read that are not those we knew."""
    asked = {"reason": reason}
    adopted = with_operator(
        lambda api, token: of_workers(api, token, service, "POST", "/ops/positions/adopt", member="adopted", body=asked)
    )
    if json:
        print_json({"adopted": adopted})
    else:
        for each in adopted:
            place = f"{each['topic']}[{each['partition']}]"
            print(f"{each['group']:<20} {place:<24} from {each['next_offset']} (it was at {each['was']})")
        print(f"{len(adopted)} adopted")
    return ExitCode.DONE
