"""Which command or event goes to which decision, and what is loaded for it."""

from services.identity.handlers import core, revoking, sessions
from services.identity.handlers.core import (
    AddSecret,
    AddSigningKey,
    AnnounceSigningKey,
    AnnounceTenant,
    ChangeTenant,
    CreateClient,
    DeleteClient,
    Granter,
    OnboardTenant,
    RefreshSession,
    RemoveSecret,
    StartSession,
)
from services.identity.handlers.revoking import TellEpoch, epoch_ref, raise_epoch
from services.identity.handlers.sessions import EndSession, RevokeSession, RevokeToken, TakeOver
from services.identity.handlers.table import HANDLERS

__all__ = [
    "HANDLERS",
    "AddSecret",
    "AddSigningKey",
    "AnnounceSigningKey",
    "AnnounceTenant",
    "ChangeTenant",
    "CreateClient",
    "DeleteClient",
    "EndSession",
    "Granter",
    "OnboardTenant",
    "RefreshSession",
    "RemoveSecret",
    "RevokeSession",
    "RevokeToken",
    "StartSession",
    "TakeOver",
    "TellEpoch",
    "core",
    "epoch_ref",
    "raise_epoch",
    "revoking",
    "sessions",
]
