"""What an image is made of, as a CycloneDX document: Debian's packages, the wheels, and ourselves."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from deploy.image.debian import Package
from libs.common.version import VERSION


def bill(packages: Sequence[Package], wheels: Path, image: str, commit: str, at: int) -> str:
    """The document about the image of that digest."""
    ourselves = {"type": "application", "name": "cartwright", "version": VERSION, "bom-ref": f"cartwright@{commit}"}
    image_of = {"type": "container", "name": "cartwright", "version": image, "bom-ref": image}
    return (
        json.dumps(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.6",
                "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, image)}",
                "version": 1,
                "metadata": {"timestamp": datetime.fromtimestamp(at, UTC).isoformat(), "component": image_of},
                "components": [ourselves, *map(_of_debian, packages), *_of_python(wheels)],
            },
            indent=1,
        )
        + "\n"
    )


def _of_debian(package: Package) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{package.name}@{package.version}?arch={package.architecture}"
    hashes = [{"alg": "SHA-256", "content": package.sha256}]
    named = {"type": "library", "name": package.name, "version": package.version}
    return named | {"purl": purl, "bom-ref": purl, "hashes": hashes}


def _of_python(wheels: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(wheels.glob("*.dist-info/METADATA")):
        told = HeaderParser().parsestr(file.read_text(encoding="utf-8"))
        purl = f"pkg:pypi/{told['Name'].lower().replace('_', '-')}@{told['Version']}"
        found = {"type": "library", "name": told["Name"], "version": told["Version"], "purl": purl, "bom-ref": purl}
        expression = told["License-Expression"]
        yield found | ({"licenses": [{"expression": expression}]} if expression else {})
