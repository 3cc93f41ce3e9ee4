"""The pages that people see: where they sign in. No script, one sheet of style, and nothing from anywhere else."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
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
.qr svg { width: 100%; max-width: 15rem; height: auto; display: block; margin: 1rem auto }
code { font-size: 1rem; overflow-wrap: anywhere }
ul { columns: 2; padding: 0; list-style: none }
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
{wrong}{before}<form method="post" action="/oauth/authorize">
{hidden}
{fields}
<button type="submit">{button}</button>
</form>
</main>
</body>
</html>
"""

_KNOWN = """<label for="email">E-mail</label>
<input id="email" name="email" type="email" autocomplete="username" required maxlength="254" value="{email}"{email_focus}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="200"{password_focus}>"""

_CODE = """<label for="code">{label}</label>
<input id="code" name="code" autocomplete="one-time-code" autocapitalize="none" spellcheck="false" required maxlength="40"
  autofocus>"""

_ENROLMENT = """<p>{tenant} asks for a second factor. Scan this with an authenticator app on your phone:</p>
<div class="qr">{qr}</div>
<p>Or type the secret: <code>{secret}</code></p>
"""

_RECOVERY = """<p>Your second factor works. Keep these recovery codes where you would find them without your phone. Each is good
once, and they are not shown again:</p>
<ul>
{codes}
</ul>
<p>Then sign in with the next code that your app shows.</p>
"""


def sign_in_page(tenant: str, asked: Mapping[str, str], redirect_uri: str, *, email: str = "", wrong: str = "") -> Response:
    """The form, with what the application asked for in it; `wrong` says what came of the last try."""
    fields = _KNOWN.format(
        email=escape(email), email_focus="" if email else " autofocus", password_focus=" autofocus" if email else ""
    )
    return _page(tenant, asked, redirect_uri, wrong=wrong, fields=fields)


def code_page(
    tenant: str, asked: Mapping[str, str], redirect_uri: str, *, wrong: str = "", recovery_codes: Sequence[str] = ()
) -> Response:
    """The form for a code after the password; with recovery codes, it is of somebody who has just got them."""
    codes = "\n".join(f"<li><code>{escape(code)}</code></li>" for code in recovery_codes)
    before = _RECOVERY.format(codes=codes) if codes else ""
    fields = _CODE.format(label="Code of your authenticator app, or a recovery code")
    return _page(tenant, asked, redirect_uri, wrong=wrong, before=before, fields=fields)


def enrolment_page(
    tenant: str, asked: Mapping[str, str], redirect_uri: str, *, secret: str, qr: str, wrong: str = ""
) -> Response:
    """The same for somebody who must have a second factor and has none: what to scan, and its first code."""
    before = _ENROLMENT.format(tenant=escape(tenant), qr=qr, secret=escape(secret))
    fields = _CODE.format(label="The code that the app shows")
    return _page(tenant, asked, redirect_uri, wrong=wrong, before=before, fields=fields, button="Go on")


def _page(
    tenant: str,
    asked: Mapping[str, str],
    redirect_uri: str,
    *,
    wrong: str,
    fields: str,
    before: str = "",
    button: str = "Sign in",
) -> Response:
    hidden = "\n".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items())
    body = _PAGE.format(
        tenant=escape(tenant),
        style=STYLE,
        wrong=f'<p class="wrong" role="alert">{escape(wrong)}</p>\n' if wrong else "",
        before=before,
        hidden=hidden,
        fields=fields,
        button=button,
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
