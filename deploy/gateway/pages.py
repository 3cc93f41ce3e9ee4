"""The pages that the gateway itself serves: every file below three folders, whole and as it is."""

import base64
import gzip
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final[Mapping[str, Path]] = {
    "/": ROOT / "shop" / "pages",
    "/console/": ROOT / "console" / "pages",
    "/docs/": ROOT / "reference" / "pages",
}
"""Where each folder's files are found."""

_INDEX: Final = "index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".yaml": "application/yaml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_READING: Final = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}


def page_routes(folders: Mapping[str, Path] = FOLDERS) -> Iterator[dict[str, Any]]:
    """Envoy's routes for every page."""
    for mount, folder in folders.items():
        files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix in _TYPES)
        if mount != "/" and files:
            yield _moved(mount)
        for file in files:
            name = file.relative_to(folder).as_posix()
            yield from _page(mount + name, file)
            if file.name == _INDEX:
                yield from _page(mount + name.removesuffix(_INDEX), file)


def _page(path: str, file: Path) -> Iterator[dict[str, Any]]:
    """To one who has it, that it is the same still; else packed for one who takes that, which nearly all do."""
    content = file.read_bytes()
    tag = hashlib.sha256(content).hexdigest()[:16]
    headers = _HEADERS | {"etag": f'W/"{tag}"', "vary": "accept-encoding"}
    typed = headers | {"content-type": _TYPES[file.suffix]}
    yield _answer(path, 304, headers, None, {"name": "if-none-match", "string_match": {"contains": f'"{tag}"'}})
    packed = gzip.compress(content, mtime=0)
    if len(packed) < len(content):
        takes = {"name": "accept-encoding", "string_match": {"contains": "gzip"}}
        yield _answer(path, 200, typed | {"content-encoding": "gzip"}, packed, takes)
    yield _answer(path, 200, typed, content)


def _answer(path: str, status: int, headers: Mapping[str, str], content: bytes | None, *asked: dict[str, Any]) -> dict[str, Any]:
    body = {} if content is None else {"body": {"inline_bytes": base64.b64encode(content).decode()}}
    return {
        "name": path,
        "match": {"path": path, "headers": [_READING, *asked]},
        "direct_response": {"status": status, **body},
        "response_headers_to_add": [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in headers.items()
        ],
    }


def _moved(mount: str) -> dict[str, Any]:
    path = mount.removesuffix("/")
    return {"name": path, "match": {"path": path}, "redirect": {"path_redirect": mount, "response_code": "PERMANENT_REDIRECT"}}
