"""Which command or event goes to which decision, and what is loaded for it."""

from services.identity.handlers import core, revoking
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
    "Granter",
    "OnboardTenant",
    "RefreshSession",
    "RemoveSecret",
    "StartSession",
    "TellEpoch",
    "core",
    "epoch_ref",
    "raise_epoch",
    "revoking",
]
