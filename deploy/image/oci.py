"""An OCI image layout: its manifest, its configuration and its layers, in a folder that every tool for images reads."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from deploy.image.layers import Layer, digest

_MEDIA: Final = "application/vnd.oci.image"
ARCHITECTURES: Final = {"amd64": "amd64", "arm64": "arm64"}
USER: Final = 10001


def configuration(
    layers: Sequence[Layer], made_by: Sequence[str], labels: Mapping[str, str], at: int, architecture: str
) -> bytes:
    """What runs, as whom, and with what in its environment."""
    created = datetime.fromtimestamp(at, UTC).isoformat()
    environment = {
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",  # noqa: S108 - the one place where a process may write
        "PYTHONPATH": "/opt/cartwright",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    }
    return _written(
        {
            "created": created,
            "architecture": ARCHITECTURES[architecture],
            "os": "linux",
            "config": {
                "User": f"{USER}:{USER}",
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Entrypoint": ["/usr/bin/python3.11", "-P", "-m", "deploy.cli"],
                "Cmd": ["--help"],
                "WorkingDir": "/opt/cartwright",
                "Labels": dict(labels),
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.unpacked_digest for layer in layers]},
            "history": [{"created": created, "created_by": what} for what in made_by],
        }
    )


def write(folder: Path, layers: Sequence[Layer], config: bytes, labels: Mapping[str, str]) -> str:
    """Write the layout; return the image's digest."""
    manifest = _written(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _described(f"{_MEDIA}.config.v1+json", config),
            "layers": [_described(f"{_MEDIA}.layer.v1.tar+gzip", layer.stored) for layer in layers],
            "annotations": dict(labels),
        }
    )
    for content in (manifest, config, *(layer.stored for layer in layers)):
        blob = folder / "blobs" / digest(content).replace(":", "/")
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
    named = {"annotations": {"org.opencontainers.image.ref.name": labels["org.opencontainers.image.version"]}}
    index = {"schemaVersion": 2, "manifests": [_described(f"{_MEDIA}.manifest.v1+json", manifest) | named]}
    (folder / "index.json").write_bytes(_written(index))
    (folder / "oci-layout").write_bytes(_written({"imageLayoutVersion": "1.0.0"}))
    return digest(manifest)


def _described(media: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": digest(content), "size": len(content)}


def _written(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
