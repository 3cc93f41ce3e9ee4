"""Where the processes of a running stack are: by service, and those of cells by cell."""

from collections.abc import Mapping, Sequence

from deploy.local import cells
from deploy.local.copies import KINDS, Copies, named, operator_port, parsed
from deploy.local.description import CellAddress, ServiceAddress
from deploy.local.services import address


def service_address(service: str, copies: Copies, ports: Mapping[str, int], pids: Mapping[str, int]) -> ServiceAddress:
    """One service's, of what runs and where it answers."""
    apis, workers = (named(service, kind, copies) for kind in KINDS)
    return ServiceAddress(
        url=address(ports[apis[0]]),
        api=tuple(pids[each] for each in apis if each in pids),
        workers=tuple(pids[each] for each in workers if each in pids),
        ops=tuple(address(ports[operator_port(each)]) for each in (*apis, *workers)),
    )


def cell_address(cell: str, services: Sequence[str], ports: Mapping[str, int], pids: Mapping[str, int]) -> CellAddress:
    """One cell's: a worker of each service that it has."""
    names = {parsed(name)[0]: name for name in cells.workers(services, [cell])}
    return CellAddress(
        workers={service: (pids[name],) if name in pids else () for service, name in names.items()},
        ops={service: (address(ports[operator_port(name)]),) for service, name in names.items()},
    )
