"""Mammals."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="mammal",
    noun="mammal",
    plural="mammals",
    questions=(*questions("mammal", "mammals"), "Which of these mammals is the {entity}? Box it."),
    source="iNaturalist 2017, super-category Mammalia (Van Horn et al. 2018), https://github.com/visipedia/inat_comp",
    licence="per photo, mostly CC BY-NC; the set is for non-commercial research and education",
)
