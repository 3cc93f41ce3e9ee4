"""The one page that people see: where they sign in. No script, one sheet of style, and nothing from anywhere else."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from fastapi import Response

STYLE = """
:root { color-scheme: light dark; font: 1.0625rem/1.5 system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; box-sizing: border-box }
main { width: 100%; max-width: 22rem }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 1.25rem }
label { display: block; margin: 1rem 0 .3rem; font-weight: 600 }
input { width: 100%; box-sizing: border-box; font: inherit; padding: .65rem .75rem; border: 1px solid GrayText;
  border-radius: .4rem; background: Field; color: FieldText }
input:focus-visible, button:focus-visible { outline: 3px solid #1a73e8; outline-offset: 2px }
button { width: 100%; margin-top: 1.5rem; padding: .75rem; font: inherit; font-weight: 600; border: 0; border-radius: .4rem;
  background: #174ea6; color: #fff; cursor: pointer }
.wrong { margin: 0 0 1rem; padding: .75rem; border-left: 4px solid #b3261e; background: #b3261e1a }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to {tenant}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Sign in to {tenant}</h1>
{wrong}<form method="post" action="/oauth/authorize">
{hidden}
<label for="email">E-mail</label>
<input id="email" name="email" type="email" autocomplete="username" required maxlength="254" value="{email}"{email_focus}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="200"{password_focus}>
<button type="submit">Sign in</button>
</form>
</main>
</body>
</html>
"""


def sign_in_page(tenant: str, asked: Mapping[str, str], redirect_uri: str, *, email: str = "", wrong: str = "") -> Response:
    """The form, with what the application asked for in it; `wrong` says what came of the last try."""
    hidden = "\n".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items())
    body = _PAGE.format(
        tenant=escape(tenant),
        style=STYLE,
        wrong=f'<p class="wrong" role="alert">{escape(wrong)}</p>\n' if wrong else "",
        hidden=hidden,
        email=escape(email),
        email_focus="" if email else " autofocus",
        password_focus=" autofocus" if email else "",
    )
    return Response(body, status_code=422 if wrong else 200, headers=_headers(redirect_uri), media_type="text/html")


def _headers(redirect_uri: str) -> Mapping[str, str]:
    """Nothing runs, nothing is framed, nothing is kept; the form goes to us, and from us to where the application is."""
    place = urlsplit(redirect_uri)
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'; "
        f"form-action 'self' {place.scheme}://{place.netloc}"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
