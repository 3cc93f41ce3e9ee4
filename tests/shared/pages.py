"""The commands of a runbook, as they stand on its page, run where its situation is."""

import re
import shlex
from collections.abc import Iterator, Mapping

from deploy.local.state import ROOT
from tests.shared.market import Market
from tests.shared.verbs import Said, cartwright

PAGES = ROOT / "docs" / "runbooks"
_FENCE = re.compile(r"^ *```sh\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)
_BLANK = re.compile(r"\b[A-Z][A-Z_]+\b")


def commands(page: str) -> Iterator[str]:
    """Each `./cartwright …` of the page, in its order."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        lines = fence["body"].replace("\\\n", " ").splitlines()
        yield from (line.strip() for line in lines if line.strip().startswith("./cartwright"))


def filled(command: str, blanks: Mapping[str, str]) -> list[str]:
    """Its words, with what stands for something (`CHECKOUT`, `acme`) replaced by it. Raises KeyError for what nobody gave."""
    words = shlex.split(command, comments=True)[1:]
    given = [word.replace("acme", blanks["acme"]) if "acme" in word else word for word in words]
    return [blanks[word] if _BLANK.fullmatch(word) else word for word in given]


async def run(market: Market, command: str, blanks: Mapping[str, str]) -> Said:
    """Run it at this stack."""
    return await cartwright(market, *filled(command, blanks))
