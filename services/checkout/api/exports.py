"""A tenant's own, to be taken away: what checkout keeps of it."""

from libs.common.http.exports import export_routes
from services.checkout import tables

ROUTES = export_routes("checkout", tables.HOLDINGS)
