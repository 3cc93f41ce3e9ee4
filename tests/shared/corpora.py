"""Requests that are meant to be read differently by two who read them, one after the other."""

ID = "018f3a2b-0000-7000-8000-000000000001"

TRICKS = (
    *("//v1/products", "/v1//products", "/v1/products/", "/v1/carts/../products", "/v1/./products", "/v1/carts/%2e%2e/products"),
    *("/v1/carts/.%2E/products", "/v1/products/..", "/v1\\products", "/v1%5cproducts", "/v1/products%00", "/v1/products%0a"),
    *("/v1/products;x=1", "/v1/products/..;/ops/sources", "/v1%2fproducts", "/ops/sources", "/v1/../ops/sources", "/OPS/sources"),
    *(
        "/v1/carts/%2e%2e%2fops%2fsources",
        f"/v1/checkouts/{ID}%2fevents",
        "/livez",
        "/readyz",
        "/startupz",
        "/metrics",
        "/openapi.json",
    ),
    *("/V1/products", "/v1/%70roducts", "/v1/products%20", "*", "v1/products", "http://elsewhere/v1/products", "/\\..\\ops"),
    *(
        "/v1/carts/" + "a" * 9_000 + "/../x",
        "/openapi.json",
        "/admin",
        "/stats",
        "/quitquitquit",
        "/ready",
        "/v1",
        "/v1/",
        "/oauth",
        "/%",
    ),
)
"""Paths that would lead elsewhere, or to what customers never reach."""

_HEAD = b"POST /v1/carts/%s/claim HTTP/1.1\r\nHost: shop\r\n" % ID.encode()
_INNER = b"GET /v1/products?smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"
SMUGGLED = {
    "a length beside a coding": _HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _INNER,
    "a coding beside a length": _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + _INNER,
    "two lengths": _HEAD + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(_INNER) + _INNER,
    "two lengths in one": _HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(_INNER) + _INNER,
    "a length with a sign": _HEAD + b"Content-Length: +%d\r\n\r\n" % len(_INNER) + _INNER,
    "a length below nothing": _HEAD + b"Content-Length: -1\r\n\r\n" + _INNER,
    "a length in hex": _HEAD + b"Content-Length: 0x10\r\n\r\n" + _INNER,
    "a coding nobody knows": _HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + _INNER,
    "a coding twice": _HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + _INNER,
    "a coding behind a tab": _HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + _INNER,
    "a space before the colon": _HEAD + b"Content-Length : 0\r\n\r\n" + _INNER,
    "a coding before a space": _HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + _INNER,
    "a header with an underscore": _HEAD + b"Content_Length: 5\r\nContent-Length: 0\r\n\r\n" + _INNER,
    "a fold": _HEAD + b"X-A: b\r\n Content-Length: 5\r\n\r\n" + _INNER,
    "a bare carriage return": _HEAD + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n" + _INNER,
    "a null": _HEAD + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n" + _INNER,
    "no host": b"GET /v1/products HTTP/1.1\r\n\r\n" + _INNER,
    "two hosts": b"GET /v1/products HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + _INNER,
    "a chunk of no size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n" + _INNER,
    "a chunk too large to count": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n" + _INNER,
    "a version of its own": b"GET /v1/products HTTP/9.9\r\nHost: shop\r\n\r\n" + _INNER,
    "a method of two words": b"GE T /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n" + _INNER,
}
"""Each is meant to hide a second request behind a first."""
