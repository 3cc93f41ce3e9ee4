"""Members of answers whose type says less than is true of them."""

from typing import Annotated

from pydantic import WithJsonSchema

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time as `rfc3339` writes it."""
