"""The gateway as it is shipped, before a service that tells what reached it."""

import asyncio
import io
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.gateway.declared import committed
from deploy.gateway.files import configuration, whole
from deploy.gateway.listening import BODY_BYTES, HEADERS, SPOKEN_FOR
from deploy.gateway.plan import Certificates, Limits, Plan, Rate, Upstream
from deploy.local.gateway import SOURCE, program
from services import SERVICES
from tests.shared.corpora import SMUGGLED, TRICKS
from tests.shared.forging import jwk_of
from tests.shared.front_door import Echo, FrontDoor, body_of, echoing, places, plan_for, said, standing

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(program() is None, reason="there is no Envoy for this platform: nothing is proved of the gateway"),
]

ID = "018f3a2b-0000-7000-8000-000000000001"
PAGE = "<!doctype html><title>A shop</title>" + "<p>Well made.</p>" * 100
KEYED = {"Idempotency-Key": "one"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo() -> AsyncIterator[Echo]:
    async with echoing() as echo:
        yield echo


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(echo: Echo, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    folder = tmp_path_factory.mktemp("gateway")
    pages = folder / "pages"
    (pages / "parts").mkdir(parents=True)
    (pages / "index.html").write_text(PAGE)
    (pages / "parts" / "shop.js").write_text("export const answer = 42;\n")
    limits = Limits(beginners=Rate(1, 3))
    async with standing(plan_for(folder, echo, limits=limits), {"/": pages, "/console/": pages}) as door:
        yield door


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(door: FrontDoor) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(door.url, auto_decompress=False) as session:
        yield session


async def _told(session: aiohttp.ClientSession, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    async with session.request(method, path, **arguments) as answer:
        assert answer.status == 200, await answer.text()
        told: dict[str, Any] = await answer.json()
        return told


async def test_what_only_a_proxy_says_of_a_caller_is_not_taken_from_the_caller(session: aiohttp.ClientSession) -> None:
    steering = ("x-envoy-original-path", "x-envoy-retry-on", "x-envoy-internal", "x-envoy-anything")
    lies = dict.fromkeys((*SPOKEN_FOR, "x-forwarded-for", "x-forwarded-proto", *steering), "203.0.113.9")
    lies |= {name.title(): "203.0.113.9" for name in ("x-user-id", "x-tenant-id")}
    told = await _told(session, "GET", "/v1/products", headers=lies)
    assert not [name for name, values in told["headers"].items() if "203.0.113.9" in values]
    assert told["headers"]["x-forwarded-for"] == ["127.0.0.1"]
    assert told["headers"]["x-forwarded-proto"] == ["http"]
    assert told["from"] == SOURCE, "the services can tell the gateway from everybody else"


async def test_a_trace_goes_on_and_is_begun_where_there_is_none(session: aiohttp.ClientSession) -> None:
    mine = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await _told(session, "GET", "/v1/products", headers={"traceparent": mine}))["headers"]["traceparent"] == [mine]
    begun = [(await _told(session, "GET", "/v1/products"))["headers"] for _ in range(20)]
    traces = {each["traceparent"][0] for each in begun}
    assert len(traces) == 20
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace) for trace in traces)
    assert not any("x-gateway-unique" in each for each in begun)


async def test_its_log_is_a_line_of_json_a_request_with_its_trace_and_nothing_that_somebody_typed(
    door: FrontDoor, session: aiohttp.ClientSession
) -> None:
    trace = "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01"
    secret = {"Authorization": "Bearer unheard-of", "traceparent": trace}
    await _told(session, "GET", "/v1/products/unheard-of?email=unheard-of@shop.test", headers=secret)
    log = door.plan.folder / "envoy.log"
    lines: list[str] = []
    async with asyncio.timeout(60):  # Envoy writes now and then
        while not lines:
            await asyncio.sleep(0.1)
            lines = [line for line in log.read_text().splitlines() if trace in line]
    [told] = [json.loads(line) for line in lines]
    assert (told["method"], told["status"], told["traceparent"], told["service"]) == ("GET", 200, trace, "cart")
    assert told["route"].endswith("/v1/products/{sku}")
    assert isinstance(told["ms"], int)
    assert "unheard-of" not in log.read_text()


async def test_a_browsers_question_whether_it_may_reaches_the_service_that_knows(session: aiohttp.ClientSession) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    told = await _told(session, "OPTIONS", "/v1/checkouts", headers=asked)
    assert (told["method"], told["headers"]["origin"]) == ("OPTIONS", ["https://shop.example"])
    assert told["headers"]["access-control-request-method"] == ["POST"]


async def test_a_path_arrives_as_it_was_sent(session: aiohttp.ClientSession) -> None:
    from yarl import URL

    for path in (f"/v1/carts/{ID}/lines/a%2Fb%20c", "/v1/tax-rates/GB/books%2Fused/old?x=%2e%2e", "/v1/products?q=%c3%a9//.."):
        async with session.get(URL(path, encoded=True)) as answer:
            if answer.status == 405:  # a line of a cart is not read
                continue
            assert (await answer.json())["path"] == path


@pytest.mark.parametrize("path", TRICKS)
async def test_no_trick_with_a_path_reaches_a_service(door: FrontDoor, echo: Echo, path: str) -> None:
    before = len(echo.heard)
    for method in ("GET", "POST"):
        status, answer = await said(
            door.plan.port, f"{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        assert status in {400, 404}, answer
        if answer.partition(b"\r\n\r\n")[2]:
            assert body_of(answer)["code"] in {"bad-request", "not-found"}
    assert len(echo.heard) == before


READ_AS_TWO = {"a fold", "a bare carriage return"}
"""Envoy writes these anew, without what was doubtful: what follows is a request of its own, whoever reads it."""


@pytest.mark.parametrize("name", SMUGGLED)
async def test_nothing_is_smuggled_in_behind_another_request(door: FrontDoor, echo: Echo, name: str) -> None:
    mark = name.replace(" ", "-").encode()
    status, answer = await said(door.plan.port, SMUGGLED[name].replace(b"?smuggled", b"?" + mark))
    await _told_of(door.url)  # whatever was let through has been heard of by now
    heard = [each for each in echo.heard if mark.decode() in each["path"]]
    if name in READ_AS_TWO:
        assert status == 200
        assert all("\r" not in value for each in echo.heard for values in each["headers"].values() for value in values)
    else:
        assert status in {0, 400, 404, 426, 501, 505}, answer
        assert heard == []


async def _told_of(url: str) -> None:
    async with aiohttp.ClientSession(url) as session:
        await _told(session, "GET", "/v1/products")


async def test_what_is_too_much_is_refused_in_our_words(door: FrontDoor, session: aiohttp.ClientSession) -> None:
    async with session.post(f"/v1/carts/{ID}/claim", data=io.BytesIO(b"x" * (BODY_BYTES + 1))) as answer:
        assert (answer.status, (await answer.json())["code"]) == (413, "body-too-large")
    many = "".join(f"X-{number}: a\r\n" for number in range(HEADERS + 1))
    for extra in (many, f"X-Long: {'a' * 40_000}\r\n"):
        status, answer_bytes = await said(door.plan.port, f"GET /v1/products HTTP/1.1\r\nHost: shop\r\n{extra}\r\n".encode())
        assert status == 431
        assert body_of(answer_bytes)["code"] == "headers-too-large" if b"problem+json" in answer_bytes else True
    async with session.delete("/v1/products") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        problem = await answer.json(content_type="application/problem+json")
    assert problem["code"] == "method-not-allowed"
    assert problem["instance"] == "/v1/products"
    assert problem["request_id"] == answer.headers["X-Request-Id"]


async def test_who_sends_a_head_by_and_by_is_not_waited_for(door: FrontDoor) -> None:
    status, answer = await said(door.plan.port, b"GET /v1/products HTTP/1.1\r\nHost: sh")
    assert (status, body_of(answer)["code"]) == (408, "request-timeout")


async def test_one_address_begins_so_much_and_is_told_when_to_come_back(session: aiohttp.ClientSession) -> None:
    async def ask() -> tuple[int, str, Mapping[str, str]]:
        async with session.post("/v1/checkouts", json={}, headers=KEYED) as answer:
            return answer.status, (await answer.json(content_type=None)).get("code", ""), answer.headers

    await asyncio.sleep(4)  # whatever was begun before from this address, all three may be again
    allowed, refused = 0, list[tuple[str, Mapping[str, str]]]()
    while not refused:  # however slow this machine is, some come within the second that so many may
        for status, code, headers in await asyncio.gather(*(ask() for _ in range(20))):
            allowed += status == 200
            refused += [(code, headers)] if status != 200 else []
    assert allowed >= 3
    for code, headers in refused:
        assert (code, headers["Retry-After"]) == ("rate-limited", "1")
        assert headers["RateLimit"] == '"address";r=0;t=1'
        assert headers["Content-Type"].startswith("application/problem+json")
    await _told(session, "GET", "/v1/products")


async def test_only_what_may_be_sent_again_is_sent_again(echo: Echo, session: aiohttp.ClientSession) -> None:
    async def attempts(method: str, path: str, headers: dict[str, str]) -> tuple[int, int]:
        before, echo.lets_go = len(echo.heard), 1
        async with session.request(method, path, json={}, headers=headers) as answer:
            status = answer.status
        echo.lets_go = 0
        return status, len(echo.heard) - before

    assert await attempts("GET", "/v1/products", {}) == (200, 2)
    assert await attempts("POST", f"/v1/carts/{ID}/claim", {}) == (503, 1)
    assert await attempts("POST", f"/v1/orders/{ID}/refunds", KEYED) == (503, 1), "it was sent whole: its caller asks again"


async def test_events_come_as_they_happen(echo: Echo, session: aiohttp.ClientSession) -> None:
    came = []
    async with asyncio.timeout(60), session.get(f"/v1/checkouts/{ID}/events") as answer:
        async for line in answer.content:
            if line.startswith(b"id: "):
                came.append(line.strip())
                echo.heard_of.release()  # so that one which waits for the next never comes
    assert came == [b"id: 0", b"id: 1", b"id: 2"]


async def test_pages_are_served_whole_and_only_when_they_have_changed(session: aiohttp.ClientSession) -> None:
    for path in ("/", "/index.html", "/console/"):
        async with session.get(path, headers={"Accept-Encoding": "identity"}) as answer:
            assert (answer.status, answer.content_type, await answer.text()) == (200, "text/html", PAGE)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (answer.headers["Cache-Control"], answer.headers["Referrer-Policy"]) == ("no-cache", "no-referrer")
    async with session.get("/", headers={"Accept-Encoding": "gzip", "If-None-Match": answer.headers["ETag"]}) as again:
        assert (again.status, await again.read()) == (304, b"")
    async with session.get("/", headers={"Accept-Encoding": "gzip"}) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(await packed.read()) < len(PAGE) / 4
    async with session.get("/parts/shop.js") as script:
        assert (script.status, script.content_type) == (200, "text/javascript")
    async with session.get("/console", allow_redirects=False) as moved:
        assert (moved.status, moved.headers["Location"].removeprefix(str(session._base_url).rstrip("/"))) == (308, "/console/")
    async with session.get("/parts/") as missing:
        assert missing.status == 404


async def test_it_changes_while_it_works_and_nobody_notices(door: FrontDoor, echo: Echo) -> None:
    over, answered = asyncio.Event(), Counter[str]()

    async def asks() -> None:
        async with aiohttp.ClientSession(door.url) as session:
            while not over.is_set():
                async with session.get("/v1/products") as answer:
                    answered[(await answer.json())["name"] if answer.status == 200 else str(answer.status)] += 1

    async with asyncio.timeout(120), echoing("another") as another, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(asks())
        door.configure(services=places(echo, another), limits=Limits())
        while not answered["another"]:
            await asyncio.sleep(0.05)
        seen = answered["echo"]
        another.is_ready = False  # as one that leaves says it
        while answered["echo"] < seen + 50:
            await asyncio.sleep(0.05)
        door.configure(services=places(echo))
        seen = answered["echo"]
        while answered["echo"] < seen + 50:
            await asyncio.sleep(0.05)
        over.set()
    assert set(answered) == {"echo", "another"}


async def test_its_operators_may_look_and_not_touch(door: FrontDoor) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{door.plan.ops_port}") as session:
        async with session.get("/stats/prometheus") as answer:
            told = await answer.text()
        watched = ("cluster_membership_healthy", "http_downstream_rq_xx", "cluster_upstream_rq_pending_overflow")
        limited = [f"gateway_{whose}_http_local_rate_limit_rate_limited" for whose in ("strangers", "beginners")]
        assert [name for name in (*watched, *limited) if f"\nenvoy_{name}" not in told] == []
        async with session.post("/quitquitquit") as refused:
            assert refused.status in {403, 404}
    assert door.child.pid


async def test_a_forged_token_goes_no_further_and_one_that_it_cannot_judge_does(tmp_path: Path) -> None:
    known, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    kid = {"kid": jwk_of(known)["kid"]}
    good = {"iss": "https://id.example", "sub": "somebody", "exp": 4_000_000_000}

    def token(key: ec.EllipticCurvePrivateKey = known, **changes: Any) -> str:
        return jwt.encode(good | changes, key, "ES256", kid)

    forged = {
        "another's signature": token(other),
        "another issuer": token(iss="https://elsewhere.example"),
        "a signature cut short": token()[:-4],
        "no token": "abc",
        "three parts of nothing": "a.b.c",
        "no algorithm": jwt.encode(good, "", "none", kid),
    }
    unjudged = {
        "good": token(),
        "over": token(exp=1),
        "a key that is too new": jwt.encode(good, other, "ES256", {"kid": jwk_of(other)["kid"]}),
    }
    async with echoing() as echo:
        echo.keys = [jwk_of(known) | {"alg": "ES256", "use": "sig"}]
        async with (
            standing(plan_for(tmp_path, echo, issuer="https://id.example")) as door,
            aiohttp.ClientSession(door.url) as session,
        ):

            async def passes(path: str, given: str) -> bool:
                async with session.get(path, headers={"Authorization": f"Bearer {given}"}) as answer:
                    told = await answer.json(content_type=None)
                assert (answer.status, told.get("code")) in {(200, None), (401, "invalid-token")}
                return answer.status == 200

            async with asyncio.timeout(60):
                while await passes("/v1/carts", forged["another's signature"]):
                    await asyncio.sleep(0.05)  # it has not heard of the keys yet
            assert {name: await passes("/v1/carts", each) for name, each in forged.items()} == dict.fromkeys(forged, False)
            assert {name: await passes("/v1/carts", each) for name, each in unjudged.items()} == dict.fromkeys(unjudged, True)
            assert await passes("/v1/sessions", "abc"), "there it is for identity to say what it makes of it"


async def test_what_is_made_for_production_is_what_envoy_takes(tmp_path: Path) -> None:
    envoy, certificates = program(), _certificates(tmp_path)
    assert envoy
    services = {service: [Upstream(f"{service}.example", 8080, 8280)] for service in SERVICES}
    plan = Plan(services, tmp_path, "::", 8443, 9901, certificates=certificates, has_http3=True, issuer="https://id.example")
    made = configuration(replace(plan, limits=Limits(Rate(15, 30), Rate(333, 1)), watched_port=9902), committed())
    assert {each["type"] for each in made["clusters.json"]["resources"]} == {"STRICT_DNS"}
    assert await _taken(envoy, whole(made), tmp_path) == (0, True)
    broken = whole(made)
    broken["static_resources"]["listeners"][0]["filter_chains"] = [{"no": "such thing"}]
    code, is_well = await _taken(envoy, broken, tmp_path)
    assert (code != 0, is_well) == (True, False)


async def test_it_speaks_tls_and_takes_up_a_new_certificate_while_it_works(echo: Echo, tmp_path: Path) -> None:
    begun = _certificates(tmp_path / "certificates")
    async with standing(plan_for(tmp_path, echo, certificates=begun)) as door:
        assert await _shown(door) == begun.chain.read_text()
        renewed = _certificates(tmp_path / "renewed")
        for new, file in ((renewed.key, begun.key), (renewed.chain, begun.chain)):
            new.replace(file)
        async with asyncio.timeout(60):
            while await _shown(door) != begun.chain.read_text():
                await asyncio.sleep(0.05)
        trusted = ssl.create_default_context(cafile=str(begun.chain))
        trusted.check_hostname = False
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{door.plan.port}/v1/products", ssl=trusted) as answer,
        ):
            assert (answer.status, answer.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")
            assert (await answer.json())["headers"]["x-forwarded-proto"] == ["https"]


async def _shown(door: FrontDoor) -> str:
    """The certificate that it shows to whoever would speak HTTP/2."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", door.plan.port, ssl=trusting)
    spoken: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert spoken.selected_alpn_protocol() == "h2"
    shown = spoken.getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(shown or b"")


async def _taken(envoy: Path, made: dict[str, Any], folder: Path) -> tuple[int | None, bool]:
    file = folder / "whole.json"
    file.write_text(json.dumps(made))
    process = await asyncio.create_subprocess_exec(
        *(envoy, "--mode", "validate", "-c", file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert b"deprecated" not in told.lower(), told
    return process.returncode, b"OK" in told


def _certificates(folder: Path) -> Certificates:
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    begun, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begun, end).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return Certificates(folder / "chain.pem", folder / "key.pem")
