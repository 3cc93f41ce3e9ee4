"""What keeps a tenant from moving."""


class MoveError(Exception):
    """It cannot move, or not yet; the message says what to do."""
