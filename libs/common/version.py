"""What of Cartwright this is."""

from typing import Final

VERSION: Final = "0.1.0"
"""As `pyproject.toml` has it; an image has no such file."""
