"""Aircraft."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="aircraft",
    noun="aircraft",
    plural="aircraft",
    questions=(*questions("aircraft", "aircraft"), "Which of these aircraft is the {entity}? Box it."),
    source="FGVC-Aircraft, 10,000 photos of 100 variants (Maji et al. 2013), "
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    licence="non-commercial research only (the photographers' terms, stated on the data set's page)",
)
