"""What each status of an error is called, in the services' answers and the gateway's alike."""

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Malformed request",
    401: "Not authenticated",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Request too slow",
    409: "Conflict",
    412: "Precondition failed",
    413: "Body too large",
    414: "Target too long",
    415: "Unsupported media type",
    422: "Request refused",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    501: "Not implemented",
    503: "Temporarily unavailable",
    505: "HTTP version not supported",
}
