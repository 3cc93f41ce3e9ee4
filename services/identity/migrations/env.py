"""Alembic's entry: the tables of this service, on the owner's connection."""

from libs.common.database import run_migrations
from services.identity.tables import METADATA

run_migrations(METADATA)
