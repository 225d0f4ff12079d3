"""Flowers."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="flower",
    noun="flower",
    plural="flowers",
    questions=(*questions("flower", "flowers"), "Which of these flowers is the {entity}? Box it."),
    source="Oxford Flowers 102, 8,189 photos of 102 kinds (Nilsback and Zisserman 2008), "
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    licence="none stated; the photos are their owners'",
)
