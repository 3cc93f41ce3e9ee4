"""The matrix of rights says what the services and the topics say, and what it grants is what it should be."""

from pathlib import Path

import pytest

from deploy.cli.invariants.reading import OTHERS, OURS, PRINCIPAL
from deploy.composition import parts_of
from deploy.local.access import Acl, Operation, Pattern, Permission, Principal, Resource, declared_access
from deploy.local.errors import StackError
from deploy.local.kafka.wall import Plan
from deploy.local.topics import declared_topics
from services import SERVICES

ACCESS = declared_access()
FOLLOWED = {"signing-key.v1", "tenant.v1", "revocation.v1"}
"""What every process may follow without a group."""
OUTSIDE = {"catalogue system": "publisher-catalog", "inventory system": "publisher-inventory"} | {
    "fulfilment system": "publisher-fulfilment"
}


def test_each_topic_has_the_one_writer_that_topics_yaml_names() -> None:
    for topic in declared_topics():
        writers = [name for name, principal in ACCESS.principals.items() if topic.name in principal.writes]
        assert writers == [OUTSIDE.get(topic.publisher, topic.publisher)], topic.name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_what_its_parts_read_what_all_follow_and_what_it_wrote(service: str) -> None:
    parts = parts_of(service)
    projections = [*parts.projections, *(kept.projection for kept in parts.apart)]
    read = {*parts.topics, *(topic for projection in projections for topic in projection.topics)}
    written = {*ACCESS.principals[service].writes}  # by which a relay knows a database that was restored
    assert {*ACCESS.principals[service].reads} == read | FOLLOWED | written
    assert ACCESS.principals[service].groups == (service,)


def test_the_checker_of_invariants_may_read_what_it_reads_and_nothing_else() -> None:
    assert ACCESS.principals[PRINCIPAL] == Principal(PRINCIPAL, reads=(*OURS, *OTHERS))


def test_nobody_is_a_member_of_anothers_group_and_everybody_is_known() -> None:
    members = {name for name, principal in ACCESS.principals.items() if principal.groups}
    assert members == {*SERVICES}
    assert {*ACCESS.principals} == {*SERVICES, *OUTSIDE.values(), "operator", PRINCIPAL}


def test_who_comes_without_credentials_may_publish_what_systems_outside_do_and_nothing_else() -> None:
    anonymous = ACCESS.anonymous
    assert {*anonymous.writes} == {topic.name for topic in declared_topics() if topic.publisher in OUTSIDE}
    assert (*anonymous.reads, *anonymous.groups, *anonymous.watches) == ()
    allowed = {acl for acl in anonymous.acls() if acl.permission == Permission.ALLOW}
    assert {(acl.operation, acl.resource) for acl in allowed} == {
        (Operation.WRITE, Resource.TOPIC),
        (Operation.WRITE, Resource.TRANSACTIONAL_ID),
    }
    assert not any(acl.principal == anonymous.user for acl in ACCESS.acls())
    assert any(acl.principal == anonymous.user for acl in ACCESS.acls(anonymous=True))


def test_the_prefix_of_a_deployment_stands_before_every_name() -> None:
    assert {acl.name.startswith("try_") for acl in ACCESS.acls("try_")} == {True}
    plain = {(acl.principal, acl.operation, acl.resource, acl.name) for acl in ACCESS.acls()}
    assert plain == {(a.principal, a.operation, a.resource, a.name.removeprefix("try_")) for a in ACCESS.acls("try_")}


def test_a_plan_says_every_right_as_kafkas_own_command_takes_it() -> None:
    missing = Acl("User:cart", Permission.ALLOW, Operation.READ, Resource.GROUP, Pattern.PREFIXED, "cart.")
    surplus = Acl("User:cart", Permission.ALLOW, 2, Resource.TOPIC, Pattern.LITERAL, "payment.v1")
    assert list(Plan(frozenset({missing}), frozenset({surplus})).lines()) == [
        "+ --allow-principal User:cart --operation read --group 'cart.' --resource-pattern-type prefixed",
        "- --allow-principal User:cart --operation 2 --topic 'payment.v1' --resource-pattern-type literal",
    ]


@pytest.mark.parametrize("right", ["write: [cart.v1]", "writes: [card.v1]", "reads: [catalog]"])
def test_a_right_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, right: str) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text(f"principals: {{cart: {{{right}}}}}\nanonymous: {{}}\n", encoding="utf-8")
    with pytest.raises(StackError, match="gives cart what does not exist"):
        declared_access(file)
