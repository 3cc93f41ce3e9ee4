"""A tenant's own, to be taken away: what checkout keeps of it."""

from libs.common.http.exports import export_routes, parts_of_export
from services.checkout import tables

LEFT_OUT = ["timeline_entry_rebuild"]
"""What stands beside a projection while it is rebuilt."""

ROUTES = export_routes("checkout", parts_of_export(tables.METADATA, {}, LEFT_OUT))
