"""Cats."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="cat",
    noun="cat",
    plural="cats",
    questions=(*questions("cat", "cats"), "Which of these cats is the {entity}? Box it."),
    source="The Oxford-IIIT Pet Dataset, 12 cat breeds of 37 (Parkhi et al. 2012), "
    "https://www.robots.ox.ac.uk/~vgg/data/pets/",
    licence="CC BY-SA 4.0; the copyright of a photo stays with its owner",
)
