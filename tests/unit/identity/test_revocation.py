"""An epoch ends what was issued before it, rises, and never falls."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.identity import RevocationRaised
from services.identity.domain.revocation import MARGIN, Epoch, milliseconds, raised

TENANT = uuid4()
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds it


@given(st.lists(MOMENTS, min_size=1, max_size=8))
def test_an_epoch_is_the_latest_of_all_that_were_raised_in_whatever_order(moments: list[datetime]) -> None:
    epoch: Epoch | None = None
    for moment in moments:
        before = epoch.epoch_ms if epoch else 0
        epoch, event = raised(epoch, tenant_id=TENANT, kind="subject", id=TENANT, at=moment)
        assert epoch.epoch_ms >= before
        assert event == RevocationRaised(kind="subject", id=str(TENANT), epoch=epoch.epoch_ms)
    assert epoch is not None
    assert epoch.epoch_ms == milliseconds(max(moments) + MARGIN)


@given(MOMENTS, st.integers(0, 1_000))
def test_it_lies_above_every_token_that_is_made_at_the_moment_of_the_decision(moment: datetime, later_ms: int) -> None:
    epoch, _ = raised(None, tenant_id=TENANT, kind="client", id="cl_x", at=moment)
    made_at = moment + min(timedelta(milliseconds=later_ms), MARGIN - timedelta(milliseconds=1))
    assert milliseconds(made_at) < epoch.epoch_ms
