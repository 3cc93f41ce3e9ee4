"""Which command or event goes to which decision, and what is loaded for it."""

from services.identity.handlers import api_keys, core, revoking, sessions, signing_keys
from services.identity.handlers.core import (
    AddSecret,
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
    "api_keys",
    "core",
    "epoch_ref",
    "raise_epoch",
    "revoking",
    "sessions",
    "signing_keys",
]
