"""A tenant's own, to be taken away: what payments keeps of it."""

from libs.common.http.exports import export_routes
from services.payments import tables

ROUTES = export_routes("payments", tables.HOLDINGS)
