"""Birds."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="bird",
    noun="bird",
    plural="birds",
    questions=(*questions("bird", "birds"), "Which of these birds is the {entity}? Box it."),
    source="iNaturalist 2017, super-category Aves (Van Horn et al. 2018), https://github.com/visipedia/inat_comp",
    licence="per photo, mostly CC BY-NC; the set is for non-commercial research and education",
)
