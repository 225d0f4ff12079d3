"""Landmarks."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="landmark",
    noun="landmark",
    plural="landmarks",
    questions=(*questions("landmark", "landmarks"), "Which of these landmarks is {entity}? Box it."),
    source="Google Landmarks v2 (Weyand et al. 2020), https://github.com/cvdfoundation/google-landmark",
    licence="annotations CC BY 4.0; the photos carry their own free licences, listed by the set",
)
