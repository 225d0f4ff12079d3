"""Names of images; what the maker writes is tested through data_synth/grounding.py."""

from __future__ import annotations

from mllm.synthesis.samples import image_name


def test_no_folder_holds_more_than_a_hundred_thousand_images() -> None:
    assert [image_name(number) for number in (0, 99_999)] == ["000000", "099999"]
    assert [image_name(number) for number in (100_000, 1_234_567)] == ["0001/100000", "0012/1234567"]
