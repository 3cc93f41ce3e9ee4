"""Somebody behind an act that no request asked for."""

from libs.common.origin import Origin


def by(name: str) -> Origin:
    return Origin(actor=name, client_id=name, by_platform=True)
