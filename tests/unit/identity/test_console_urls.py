"""Where the console may be: over TLS, or on this machine. Anywhere else a code could be read on its way."""

import pytest
from pydantic import ValidationError

from services.identity.settings import Settings


def _checked(value: str) -> str:
    settings = Settings.model_construct()
    Settings.__pydantic_validator__.validate_assignment(settings, "console_urls", value)
    return settings.console_urls


@pytest.mark.parametrize(
    "value", ["", "https://shop.test/console/", "http://127.0.0.1:8080/console/ http://localhost/", "http://[::1]:1/console/"]
)
def test_places_over_tls_or_on_this_machine_are_taken(value: str) -> None:
    assert _checked(value) == value


@pytest.mark.parametrize(
    "value",
    ["http://shop.test/console/", "javascript:1", "https://", "shop.test", "https://a.test/ ftp://b.test/", "https://a.test/#x"],
)
def test_a_place_that_others_could_listen_at_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        _checked(value)
