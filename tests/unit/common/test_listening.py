"""Where a process listens, and as whom it knows those who come there."""

import socket

import pytest

from libs.common.http.connection import Crowd, plain
from libs.common.http.server import listen


def _reached(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=10) as connection:
        return str(connection.getsockname()[0])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no socket of both protocols")
def test_everywhere_is_ipv4_and_ipv6_and_a_caller_has_one_address() -> None:
    with listen("::", 0, "CARTWRIGHT_HTTP_PORT") as listening:
        port = listening.getsockname()[1]
        for host, seen in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
            assert _reached(host, port) == seen
            accepted, peer = listening.accept()
            accepted.close()
            assert plain(peer[0]) == seen
    with listen("::1", 0, "CARTWRIGHT_HTTP_PORT") as listening, pytest.raises(OSError, match="refused"):
        _reached("127.0.0.1", listening.getsockname()[1])


def test_what_a_proxy_says_of_a_caller_is_the_same_address_too() -> None:
    crowd = Crowd(1, 1)
    assert crowd.spoken_for([b"::ffff:192.0.2.7"], "10.0.0.1") == "192.0.2.7"
    assert crowd.spoken_for([b"2001:db8::7"], "10.0.0.1") == "2001:db8::7"
