"""Cars."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="car",
    noun="car",
    plural="cars",
    questions=(*questions("car", "cars"), "Which of these cars is the {entity}? Box it."),
    source="Stanford Cars, 16,185 photos of 196 models (Krause et al. 2013)",
    licence="non-commercial research, as ImageNet",
)
