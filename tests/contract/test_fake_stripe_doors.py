"""A page that the developer's browser has open can do nothing to the fake, under whatever name it reaches it."""

from __future__ import annotations

import httpx
import pytest

from tests.shared.fakes import Process

FAULTS = {"rules": [{"match": {"path": "/v1/*"}, "fault": "500"}]}


def _ask(process: Process, method: str, path: str, headers: dict[str, str]) -> int:
    return httpx.request(method, f"{process.url}{path}", headers=headers, json=FAULTS if method == "PUT" else None).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example:12111"},
        {"Host": "127.0.0.1.example"},
        {"Host": "localhost@rebound.example"},
        {"Host": ""},
        {"Origin": "https://shop.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Referer": "https://shop.example/a"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_page_of_another_site_breaks_it_or_reads_it(process: Process, headers: dict[str, str]) -> None:
    assert _ask(process, "PUT", "/_control/faults", headers) == 403
    assert _ask(process, "POST", "/_control/reset", headers) == 403
    assert httpx.get(f"{process.url}/_control/faults").json()["rules"] == []


def test_a_name_that_is_not_its_own_reaches_nothing_of_it(process: Process) -> None:
    for path in ("/v1/payment_intents", "/redirect/authenticate/pi_1", "/_control/readyz", "/anything"):
        assert _ask(process, "GET", path, {"Host": "rebound.example"}) == 403, path


def test_its_own_pages_and_this_machines_programs_get_in(process: Process) -> None:
    port = httpx.URL(process.url).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "localhost"):
        own = {"Host": host, "Origin": f"http://{host}", "Referer": f"http://{host}/x", "Sec-Fetch-Site": "same-origin"}
        assert _ask(process, "GET", "/_control/readyz", own) == 200, host
    assert _ask(process, "GET", "/v1/payment_intents", {"Origin": "https://shop.example"}) == 401, "a shop's page may pay"
