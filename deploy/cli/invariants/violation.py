"""What a broken invariant is called."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One thing that is not as it must be."""

    tenant: str
    invariant: str
    subject: str
    detail: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """The same for the same fault, however often it is looked at."""
        return self.tenant, self.invariant, self.subject

    def __str__(self) -> str:
        return f"{self.tenant}  {self.invariant}  {self.subject}: {self.detail}"
