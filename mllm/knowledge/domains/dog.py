"""Dogs."""

from mllm.knowledge.domains import Domain, questions

DOMAIN = Domain(
    name="dog",
    noun="dog",
    plural="dogs",
    questions=(*questions("dog", "dogs"), "Which of these dogs is the {entity}? Box it."),
    source="Stanford Dogs, 20,580 photos of 120 breeds with boxes (Khosla et al. 2011), "
    "http://vision.stanford.edu/aditya86/ImageNetDogs/",
    licence="non-commercial research, as ImageNet",
)
