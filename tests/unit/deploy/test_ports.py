import subprocess
import sys

from deploy.local import ports
from deploy.local.state import ROOT

PICK = "import sys; from deploy.local import ports; ports._SPARE = range(int(sys.argv[1]), int(sys.argv[1]) + 40)"


def test_no_spare_port_is_given_out_twice_in_one_process_or_in_two() -> None:
    code = f"{PICK}; print(*[ports.spare_port() for _ in range(15)], flush=True); sys.stdin.read()"
    first = str(ports.spare_port())
    command = [sys.executable, "-c", code, first]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert one.stdout is not None
        assert other.stdout is not None
        chosen = [*one.stdout.readline().split(), *other.stdout.readline().split()]
        one.communicate()
        other.communicate()
    assert len({first, *chosen}) == 31
