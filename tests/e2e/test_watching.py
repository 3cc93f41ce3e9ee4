"""What Prometheus reads of a running system: all that rules and dashboards ask for is there, under the names that they use."""

from collections import defaultdict
from collections.abc import Iterator

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from deploy.cli.invariants.run import LOOKED_AT, VIOLATIONS
from deploy.observability import dashboards
from deploy.observability.declared import declared
from deploy.observability.files import RULES
from tests.shared.expressions import Selector, selectors
from tests.shared.market import Market
from tests.shared.watching import places

pytestmark = pytest.mark.asyncio(loop_scope="session")

OF_TARGETS = {"namespace", "instance", "cartwright_service"}
"""Labels that Prometheus adds of whom it asks."""


def _expressions() -> Iterator[str]:
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for known in dashboards.declared().values():
        for panels in known["rows"].values():
            yield from (expression for panel in panels for expression in panel["of"].values())


async def _exposed(market: Market) -> tuple[dict[str, list[Sample]], set[str]]:
    """Every sample by its name, and every name, those of which there is no sample yet included."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    names: set[str] = set()
    async with aiohttp.ClientSession() as session:
        texts = []
        for name, place in places(market.stack).items():
            async with session.get(f"http://{place}{'/stats/prometheus' if name == 'gateway' else '/metrics'}") as answer:
                texts.append(await answer.text())
    of_command = CollectorRegistry()  # `invariants --watch`, which runs nowhere here
    for each in (VIOLATIONS, LOOKED_AT):
        of_command.register(each)
    for text in [*texts, generate_latest(of_command).decode()]:
        for family in text_string_to_metric_families(text):
            names |= {family.name, *(f"{family.name}_{end}" for end in ("total", "bucket", "sum", "count"))}
            for sample in family.samples:
                name = (
                    sample.name.removesuffix("_total") if sample.name.startswith("envoy") else sample.name
                )  # the parser adds it
                samples[name].append(sample)
    return samples, names


async def test_every_metric_and_label_that_is_asked_for_is_told_by_some_process(market: Market) -> None:
    gateway = market.stack.description().gateway_url
    shopper = market.shop.shopper("customer:watched")
    cart_id = await market.cart(shopper, {"SKU-1": 1})
    checkout = await shopper.check_out(cart_id, key="watched", method="pm_card_visa", wait_seconds=20)
    assert (await shopper.outcome(checkout, patience_seconds=240))["state"] == "confirmed"
    samples, names = await _exposed(market)
    asked = {each for expression in _expressions() for each in selectors(expression)}
    recorded = {each.name for each in asked if ":" in each.name}
    ours = {each for each in asked if each.name not in recorded and (gateway or not each.name.startswith("envoy"))}
    assert {each.name for each in ours} - names - samples.keys() == set()
    for each in ours:
        for sample in samples[each.name][:1]:
            assert each.labels - sample.labels.keys() - OF_TARGETS == set(), each
    of_objectives = [text for each in declared().objectives for text in (each.good, each.total) if text]
    for text in of_objectives:
        [wanted] = selectors(text)
        if gateway or not wanted.name.startswith("envoy"):
            assert any(_is_of(sample, wanted) for sample in samples[wanted.name]), text


def _is_of(sample: Sample, wanted: Selector) -> bool:
    return all(sample.labels[label] == value for label, value in wanted.equal if label not in OF_TARGETS)
