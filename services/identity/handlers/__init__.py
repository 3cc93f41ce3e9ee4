"""Which command or event goes to which decision, and what is loaded for it."""

from services.identity.handlers import (
    api_keys,
    core,
    invitations,
    members,
    password_resets,
    revoking,
    roles,
    second_factors,
    sessions,
    signing_in,
    signing_keys,
    standing,
)
from services.identity.handlers.core import (
    AddSecret,
    AnnounceTenant,
    AskOwner,
    ChangeTenant,
    CreateClient,
    DeleteClient,
    OnboardTenant,
    RefreshSession,
    RemoveSecret,
    StartSession,
)
from services.identity.handlers.granting import Granter
from services.identity.handlers.invitations import AcceptInvitation, CreateInvitation, ResendInvitation, RevokeInvitation
from services.identity.handlers.members import ChangeMember, RemoveMember
from services.identity.handlers.password_resets import AskPasswordReset, EndLeftSessions, ResetPassword
from services.identity.handlers.revoking import TellEpoch, epoch_ref, raise_epoch
from services.identity.handlers.roles import ChangeRole, CreateRole, DeleteRole
from services.identity.handlers.second_factors import BeginFactor, ConfirmFactor, RemoveFactor, RenewRecoveryCodes
from services.identity.handlers.sessions import EndSession, RevokeSession, RevokeToken, TakeOver
from services.identity.handlers.signing_in import IssueCode, ReadStanding, RedeemCode, Standing
from services.identity.handlers.standing import CloseTenant, EraseTenant, PlaceTenant, ResumeTenant, SuspendTenant
from services.identity.handlers.table import HANDLERS

__all__ = [
    "HANDLERS",
    "AcceptInvitation",
    "AddSecret",
    "AnnounceTenant",
    "AskOwner",
    "AskPasswordReset",
    "BeginFactor",
    "ChangeMember",
    "ChangeRole",
    "ChangeTenant",
    "CloseTenant",
    "ConfirmFactor",
    "CreateClient",
    "CreateInvitation",
    "CreateRole",
    "DeleteClient",
    "DeleteRole",
    "EndLeftSessions",
    "EndSession",
    "EraseTenant",
    "Granter",
    "IssueCode",
    "OnboardTenant",
    "PlaceTenant",
    "ReadStanding",
    "RedeemCode",
    "RefreshSession",
    "RemoveFactor",
    "RemoveMember",
    "RemoveSecret",
    "RenewRecoveryCodes",
    "ResendInvitation",
    "ResetPassword",
    "ResumeTenant",
    "RevokeInvitation",
    "RevokeSession",
    "RevokeToken",
    "Standing",
    "StartSession",
    "SuspendTenant",
    "TakeOver",
    "TellEpoch",
    "api_keys",
    "core",
    "epoch_ref",
    "invitations",
    "members",
    "password_resets",
    "raise_epoch",
    "revoking",
    "roles",
    "second_factors",
    "sessions",
    "signing_in",
    "signing_keys",
    "standing",
]
