"""Reptiles."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="reptilia",
    noun="reptile",
    plural="reptiles",
    questions=(*questions("reptile", "reptiles"), "Which of these reptiles is {entity}? Box it."),
    source="iNaturalist 2017, super-category Reptilia (Van Horn et al. 2018), https://github.com/visipedia/inat_comp",
    licence="per photo, mostly CC BY-NC; the set is for non-commercial research and education",
)
