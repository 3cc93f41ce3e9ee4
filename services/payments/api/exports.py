"""A tenant's own, to be taken away: what payments keeps of it."""

from libs.common.http.exports import export_routes, parts_of_export
from services.payments import tables

WITHHELD = {"provider_account": ["webhook_secrets", "master_key_id"]}
"""Secrets, and what they are sealed with. Sealed keys and digests in bytes are never taken away, here or elsewhere."""

ROUTES = export_routes("payments", parts_of_export(tables.METADATA, WITHHELD, []))
