"""What every visit of a page must keep: nothing from other hosts, no error of a script, nothing that its policy forbids."""

from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request

CHROMIUM_OPTIONS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE_SECONDS: Final = 120
"""A page waits for states, and so does a test: on a busy machine they take their time."""

_AXE: Final = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
_AUDIT: Final = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}).then(found => found.violations)"


class Visits:
    """The visitors of one test."""

    def __init__(self, browser: Browser, base_url: str) -> None:
        """Send them to these pages."""
        self._browser = browser
        self._base_url = base_url
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []
        self._elsewhere: set[str] = set()

    async def begin(self, **options: Any) -> Page:
        """A visitor with a browser of their own; `options` are a context's (viewport, color_scheme, reduced_motion, …)."""
        context = await self._browser.new_context(base_url=self._base_url, **options)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        context.on("console", self._said)
        context.on("weberror", lambda error: self._faults.append(str(error.error)))
        context.on("request", self._asked)
        self._contexts.append(context)
        return await context.new_page()

    async def end(self) -> None:
        """Send all home, and hold what they saw against what must be so."""
        for context in self._contexts:
            await context.close()
        assert not self._faults, f"a script failed, or did what the page's policy forbids: {self._faults}"
        assert not self._elsewhere, f"a page asked other hosts: {self._elsewhere}"

    def may_go_to(self, *addresses: str) -> None:
        """Let a test lead its visitor elsewhere: to the bank's page."""
        self._elsewhere -= {urlsplit(address).netloc for address in addresses}

    def _said(self, message: ConsoleMessage) -> None:
        # A refusal that the page is there to tell of, or a network that a test has cut, is an error to Chromium's console alone.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self._faults.append(message.text)

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        navigates = request.is_navigation_request() and request.method in {"GET", "POST"}
        if address.scheme in {"http", "https"} and address.netloc != urlsplit(self._base_url).netloc and not navigates:
            self._elsewhere.add(address.netloc)


async def barriers(page: Page) -> list[str]:
    """What axe finds in the page as it is: which rule, and where."""
    await page.evaluate(f"() => {{ if (!window.axe) {{ {_AXE} }} }}")
    found: list[dict[str, Any]] = await page.evaluate(_AUDIT)
    return [f"{each['id']}: {[node['html'][:200] for node in each['nodes']]}" for each in found]
