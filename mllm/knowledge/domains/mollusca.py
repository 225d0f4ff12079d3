"""Molluscs."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="mollusca",
    noun="mollusc",
    plural="molluscs",
    questions=(*questions("mollusc", "molluscs"), "Which of these molluscs is the {entity}? Box it."),
    source="iNaturalist 2017, super-category Mollusca (Van Horn et al. 2018), https://github.com/visipedia/inat_comp",
    licence="per photo, mostly CC BY-NC; the set is for non-commercial research and education",
)
