"""The way to the provider, as the environment has it in the standard variables that every program reads."""

import os
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


def trusted(bundle: str) -> ssl.SSLContext:
    """Who may say that an address is the provider's: whom `SSL_CERT_FILE` or `SSL_CERT_DIR` names, else whom this bundle does."""
    is_named = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ
    return ssl.create_default_context(cafile=None if is_named else bundle)


def proxy_to(address: str) -> str | None:
    """The proxy on the way there, by `HTTPS_PROXY` and `NO_PROXY`; None for what is not encrypted."""
    where = urlsplit(address)
    if where.scheme != "https" or proxy_bypass(where.netloc):
        return None
    return getproxies_environment().get("https")
