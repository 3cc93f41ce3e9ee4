"""The console's files as they are served: small, of this host alone, and without a way for text to become markup or to stay."""

import gzip
import re
from pathlib import Path

import pytest

from deploy.local.state import ROOT

PAGES = sorted((ROOT / "deploy" / "console" / "pages").iterdir())
SCRIPTS = [page for page in PAGES if page.suffix == ".js"]
NAMESPACE = "http://www.w3.org/2000/svg"
MOST_BYTES = 60_000
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser")
STORES = re.compile(r"localStorage|indexedDB|document\.cookie|caches\.|serviceWorker|sessionStorage\.setItem")


def test_all_of_it_together_is_small() -> None:
    assert sum(len(gzip.compress(page.read_bytes(), mtime=0)) for page in PAGES) < MOST_BYTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_names_no_other_host(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(NAMESPACE, "")
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text) == []


def test_nothing_runs_or_is_styled_inline() -> None:
    text = (ROOT / "deploy" / "console" / "pages" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_text_becomes_no_markup(script: Path) -> None:
    assert MARKUP.findall(script.read_text(encoding="utf-8")) == []


def test_what_waits_for_the_way_back_is_all_that_is_ever_stored() -> None:
    found = {script.name: stored for script in SCRIPTS if (stored := STORES.findall(script.read_text(encoding="utf-8")))}
    assert found == {"session.js": ["sessionStorage.setItem"]}
