"""What the tables of this service belong to."""

from sqlalchemy import MetaData

METADATA = MetaData()
