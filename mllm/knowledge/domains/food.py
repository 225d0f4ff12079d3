"""Dishes."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="food",
    noun="food",
    plural="dishes",
    questions=(*questions("food", "dishes"), "Which of these dishes is {entity}? Box it."),
    source="Food-101, 101,000 photos of 101 dishes (Bossard et al. 2014), "
    "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    licence="the photos are their owners' (Foodspotting); scientific fair use",
)
