"""Every error a caller may see, and what each means.

    CartwrightError
    ├── RejectedError     the request breaks a rule, and always will          422
    │   ├── MalformedError  it cannot even be read                            400
    │   └── UnbelievableError  a message that nobody should act upon          set aside, and in nobody's way
    ├── DeniedError       the caller may not                                  403
    │   ├── UnauthenticatedError  nobody knows who the caller is              401
    │   └── ErasedError     of a tenant that is gone for good                 a request 403, a message dropped
    │       └── ElsewhereError  of one that is in another cell, or on its way there  a request 503, a message left to that cell
    ├── NotFoundError     absent, or not for this caller to know of           404
    │   └── ForeignError    another tenant's by its very name: told as absent  404
    ├── ConflictError     not legal in the present state                      409
    │   └── StaleError      the caller's copy is out of date                  412
    └── UnavailableError  nothing was done; the same call may succeed later   503
        ├── OverloadedError  more is asked for than is got through with   503, before it melts
        └── NotYetError     what a message refers to may still be on its way  waits aside for a while, then parked

Only the edges turn a kind into an HTTP status, a retry or a parked message.
"""

from typing import Any


class CartwrightError(Exception):
    """A refusal with a stable code, a sentence for people, and members for machines."""

    status = 500

    def __init__(self, code: str, detail: str, **members: Any) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.members = members


class RejectedError(CartwrightError):
    """It breaks a rule, and the same request always will."""

    status = 422


class MalformedError(RejectedError):
    """It cannot be read."""

    status = 400


class UnbelievableError(RejectedError):
    """What another system says cannot be so, whatever comes before or after it: the message is rejected, and holds up none."""


class DeniedError(CartwrightError):
    """The caller is known and may not."""

    status = 403


class UnauthenticatedError(DeniedError):
    """No valid token says who is calling."""

    status = 401


class ErasedError(DeniedError):
    """It is about a tenant of which nothing is kept any more: nothing happens to it, and nobody hears of it again."""


class ElsewhereError(ErasedError):
    """It is about a tenant of another cell, or one that is on its way there: who asks again finds it there."""

    status = 503


class NotFoundError(CartwrightError):
    """Absent, or another's: the two are not to be told apart."""

    status = 404


class ForeignError(NotFoundError):
    """Another tenant's, which its name alone tells: answered word for word as if it were absent."""


class ConflictError(CartwrightError):
    """Not legal in the present state."""

    status = 409


class StaleError(ConflictError):
    """The caller decided on a version that is no longer the present one."""

    status = 412


class UnavailableError(CartwrightError):
    """A dependency is away or busy; nothing was done."""

    status = 503


class NotYetError(UnavailableError):
    """What a message refers to may still be arriving: it waits aside for a while, then it is parked."""


class OverloadedError(UnavailableError):
    """More is asked for than this process gets through with: refused at once, while those before it are still answered."""

    def __init__(self) -> None:
        super().__init__("too-busy", "more is asked for here than can be answered at once; try again shortly", retry_after=1)
