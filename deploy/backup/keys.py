"""The key that backups are sealed with. It is not the master key: who keeps backups need not open what is sealed in them."""

from typing import Final

from deploy.backup.errors import BackupError
from deploy.local.environment import variable
from deploy.local.master_keys import random_key
from deploy.local.state import Home
from libs.common.sealing import MasterKey, MasterKeys

KEY_FILE: Final = "backup-key"


def backup_keys(home: Home, *, make: bool) -> MasterKeys:
    """The user's own, or the one in the state directory; `make` makes one where there is none. Raises BackupError."""
    current = _read("BACKUP_KEY")
    if current is None and (make or home.secret_file(KEY_FILE).exists()):
        current = _decoded(str(home.secret_file(KEY_FILE)), home.secret(KEY_FILE, random_key))
    if current is None:
        raise BackupError(
            f"there is no backup key: set CARTWRIGHT_BACKUP_KEY_FILE, or put it back at {home.secret_file(KEY_FILE)}"
        )
    return MasterKeys(current, _read("PREVIOUS_BACKUP_KEY"))


def _read(name: str) -> MasterKey | None:
    given = variable(name)
    return _decoded(f"CARTWRIGHT_{name}", given) if given else None


def _decoded(where: str, encoded: str) -> MasterKey:
    try:
        return MasterKey.decode(encoded)
    except ValueError as error:
        raise BackupError(f"{where} is no key: {error}") from None
