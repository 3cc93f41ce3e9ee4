"""An epoch ends what was issued before it, rises, and never falls."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.identity import Revocable, RevocationRaised
from services.identity.api.raised import LIFTED, Raised
from services.identity.domain.access import Grant, claims
from services.identity.domain.revocation import MARGIN, Epoch, milliseconds, raised
from tests.shared.roots import none_revoked

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


def test_a_new_token_lies_above_what_was_revoked_of_its_subject_and_never_above_the_end_of_its_session() -> None:
    revocations, session, now = none_revoked(), uuid4(), datetime.now(UTC)
    grant = Grant(subject_id=uuid4(), client_id="cl_1", tenant_id=TENANT, roles=(), permissions=frozenset(), session_id=session)
    raised_here = Raised(revocations)
    assert raised_here.above(grant, now) == 0
    ended, _ = raised(None, tenant_id=TENANT, kind="session", id=session, at=now)
    raised_here.learn([ended])
    assert raised_here.above(grant, now) == 0
    named: list[tuple[Revocable, UUID | str]] = [("subject", grant.subject_id), ("client", "cl_1"), ("tenant", TENANT)]
    for kind, name in named:
        epoch, _ = raised(None, tenant_id=TENANT, kind=kind, id=name, at=now)
        raised_here.learn([epoch])
        assert raised_here.above(grant, now) == epoch.epoch_ms
        assert claims(grant, "i", uuid4(), now, after_ms=epoch.epoch_ms)["iat_ms"] >= epoch.epoch_ms
    ahead, _ = raised(None, tenant_id=TENANT, kind="tenant", id=TENANT, at=now + LIFTED + timedelta(seconds=1))
    raised_here.learn([ahead])
    assert raised_here.above(grant, now) == 0, "it is none of identity's, and new tokens must not outrun those that are"
