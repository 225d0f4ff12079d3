"""Every domain file keeps the contract: noun, wordings, where photos can be had and on what terms."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from mllm.errors import UnknownNameError
from mllm.knowledge import domains
from mllm.knowledge.domains import Domain, DomainError

KVG = {
    "aircraft": "aircraft", "car": "car", "reptilia": "reptile", "bird": "bird", "food": "food",
    "dog": "dog", "mollusca": "mollusc", "mammal": "mammal", "flower": "flower", "landmark": "landmark",
}  # fmt: skip
ANT = {"noun": "ant", "plural": "ants", "source": "here", "licence": "none"}


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
        domains.named("birds")
    with pytest.raises(UnknownNameError, match="unknown domain 'Bird'"):
        domains.check("Bird")


NOUNS = [
    (("fungus", "fungi"), "fungus/fungi", "fungus", "fungi"),
    (("fungus/fungi",), "fungus/fungi", "fungus", "fungi"),
    (("fungus",), "fungus", "fungus", "funguses"),
    (("butterfly",), "butterfly", "butterfly", "butterflies"),
    (("orchid", "orchids"), "orchid", "orchid", "orchids"),
    (("slime  mould",), "slime mould", "slime mould", "slime moulds"),
    (("bird of prey",), "bird of prey", "bird of prey", "birds of prey"),
    (("sea wolf",), "sea wolf", "sea wolf", "sea wolves"),
    (("person",), "person", "person", "people"),
    (("goldfish",), "goldfish", "goldfish", "goldfish"),
    (("brush",), "brush", "brush", "brushes"),
    (("bird",), "bird", "bird", "birds"),
    (("food", "dishes"), "food", "food", "dishes"),
]


@pytest.mark.parametrize(("given", "name", "noun", "plural"), NOUNS, ids=[row[1] for row in NOUNS])
def test_any_noun_is_a_domain(given: tuple[str, ...], name: str, noun: str, plural: str) -> None:
    assert domains.named(*given) == name
    domain = domains.load(name)
    assert (domain.noun, domain.plural) == (noun, plural)
    assert domain.question("Talo ruvi") == f"Find the {noun} Talo ruvi."
    assert domain.question("Talo ruvi", 1).endswith(f"among these {plural}.")


@pytest.mark.parametrize("text", ["", "{ant}", "ant}", "<|im_end|>", "ant.txt", "a/b/c", "ant\n", "x" * 80, "/ants"])
def test_what_cannot_be_a_noun_is_refused(text: str) -> None:
    with pytest.raises(DomainError, match="a noun is needed.*aircraft, bird"):
        domains.load(text)
    with pytest.raises(DomainError, match="a noun is needed"):
        domains.named("ant", f"{text}/")


def test_an_entity_that_is_the_noun_is_named_once() -> None:
    person = domains.load("person")
    assert person.question("person") == "Find the person." and person.question("person", 4) == "Locate the person."


def test_a_file_of_ones_own_gives_its_wordings_and_rows_need_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "_GIVEN", {})
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"noun": "fungus", "plural": "fungi", "questions": ["Which cap is the {entity}?"]}))
    name = domains.named(str(file))
    assert name == "fungus/fungi" and domains.load(name).questions[-1] == "Which cap is the {entity}?"
    with pytest.raises(DomainError, match="the file gives the plural"):
        domains.named(str(file), "funguses")
    with pytest.raises(DomainError, match="none.yaml"):
        domains.named(str(tmp_path / "none.yaml"))
    monkeypatch.setattr(domains, "_GIVEN", {})  # another machine
    assert domains.load(name).question("fly agaric", 1) == "Where is the fly agaric? Give its box among these fungi."


@pytest.mark.parametrize(
    "question", ["Find it.", "Find the ant {entity} and {entity}.", "Find {name}.", "{entity}, {}"]
)
def test_a_template_that_lacks_a_part_is_refused(question: str, tmp_path: Path) -> None:
    file = tmp_path / "ant.yaml"
    file.write_text(json.dumps(ANT | {"questions": ["Box {entity}.", question]}), encoding="utf-8")
    with pytest.raises(DomainError, match=r"ant\.yaml: field questions\[1\]: "):
        domains.read(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (json.dumps({key: value for key, value in ANT.items() if key != "noun"}), "field noun: is missing"),
        (json.dumps(ANT | {"noun": "{ant}"}), "field noun: "),
        (json.dumps(ANT | {"plural": 3}), "field plural: .*, got 3"),
        (json.dumps(ANT | {"colour": "red"}), "field colour: unknown field"),
        ("", "an object is needed, got None"),
        ("noun: [ant", "broken YAML"),
    ],
)
def test_a_bad_file_is_refused_by_file_and_field(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "ant.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DomainError, match=rf"ant\.yaml(:2)?: {problem}"):
        domains.read(file)


def test_a_file_without_questions_has_those_that_fit_any_noun(tmp_path: Path) -> None:
    file = tmp_path / "ant.yaml"
    file.write_text(json.dumps(ANT), encoding="utf-8")
    assert len(domains.read(file).questions) == 5
