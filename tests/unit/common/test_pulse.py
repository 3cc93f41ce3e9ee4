"""A process that hangs is not alive, however well it answers."""

import httpx
import pytest

from libs.common.http.server import operator_app
from libs.common.pulse import PULSE, SILENCE_SECONDS, Pulse


def test_who_says_nothing_for_long_hangs_until_it_says_something_or_has_nothing_to_do() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    pulse.beat("relay")
    with pulse.during("lane 0 of cart"):
        now[0] += SILENCE_SECONDS
        assert pulse.hangs() is None
        now[0] += 1
        assert pulse.hangs() == f"relay for {SILENCE_SECONDS + 1:.0f} s, lane 0 of cart for {SILENCE_SECONDS + 1:.0f} s"
        pulse.beat("relay")
        assert str(pulse.hangs()).startswith("lane 0 of cart")
    assert pulse.hangs() is None


async def test_a_process_in_which_something_hangs_is_to_be_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(operator_app([])), base_url="http://process") as client:
        assert (await client.get("/livez")).status_code == 200
        with monkeypatch.context() as patched:
            patched.setattr(PULSE, "_last", {"relay": -2 * SILENCE_SECONDS})
            hanging = await client.get("/livez")
        assert (hanging.status_code, hanging.text.startswith("hangs: relay for ")) == (503, True)
        assert (await client.get("/livez")).status_code == 200
