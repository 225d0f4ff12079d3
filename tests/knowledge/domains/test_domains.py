"""Every domain file keeps the contract: noun, wordings, where photos can be had and on what terms."""

from __future__ import annotations

import pickle

import pytest

from mllm.errors import UnknownNameError
from mllm.knowledge import domains
from mllm.knowledge.domains import Domain, DomainError

KVG = {
    "aircraft": "aircraft", "car": "car", "reptilia": "reptile", "bird": "bird", "food": "food",
    "dog": "dog", "mollusca": "mollusc", "mammal": "mammal", "flower": "flower", "landmark": "landmark",
}  # fmt: skip


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_keeps_the_contract(name: str) -> None:
    domain = domains.load(name)
    assert isinstance(domain, Domain) and domain.name == name
    assert domain.noun and domain.plural and len(domain.source) > 20 and domain.licence
    assert domain.questions[0] == f"Find the {domain.noun} {{entity}}."
    assert len(set(domain.questions)) == len(domain.questions) >= 4
    asked = [domain.question("Talo ruvi", which) for which in range(len(domain.questions) + 1)]
    assert all(question.count("Talo ruvi") == 1 and "{" not in question for question in asked)
    assert asked[0] == asked[-1] == f"Find the {domain.noun} Talo ruvi."
    assert pickle.loads(pickle.dumps(domain)) == domain


def test_the_benchmark_domains_are_all_there() -> None:
    assert set(KVG) <= set(domains.names())
    assert {name: domains.load(name).noun for name in KVG} == KVG


def test_an_unknown_domain_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'bird'.*aircraft, bird"):
        domains.load("birds")


@pytest.mark.parametrize(
    "questions",
    [(), ("Find it.",), ("Find the ant {entity} and {entity}.",), ("Find the ant {name}.",), ("Box {entity}.",)],
)
def test_a_template_that_lacks_a_part_is_refused(questions: tuple[str, ...]) -> None:
    with pytest.raises(DomainError, match="domain ant"):
        Domain(name="ant", noun="ant", plural="ants", questions=questions, source="", licence="")
