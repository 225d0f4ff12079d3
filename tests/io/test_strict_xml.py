"""XML with lines: what is read, and what is refused where it stands."""

from __future__ import annotations

import pytest

from mllm.errors import FieldmarkError
from mllm.io import strict_xml

TEXT = """<?xml version="1.0" encoding="ISO-8859-1"?>
<a:archive xmlns:a="http://example.org/">
 <core index="1"><name> m\u00f6we </name>
 <name>&lt;other&gt;</name></core>
</a:archive>"""


def test_elements_know_their_line_their_attributes_and_their_text() -> None:
    top = strict_xml.loads(TEXT.encode("latin-1"), "x.xml")
    (core,) = top.all("core")
    assert (top.tag, top.where, core.where, core.attributes) == ("archive", "x.xml:2", "x.xml:3", {"index": "1"})
    assert [one.where for one in core.all("name")] == ["x.xml:3", "x.xml:4"]
    assert (top.text_of("core", "name"), top.text_of("core", "none")) == ("m\u00f6we", "")
    assert core.all("name")[1].text == "<other>"


@pytest.mark.parametrize(("text", "message"), [
    ("", "x.xml:1: broken XML: no element found"),
    ("<a>\n<b></a>", "x.xml:2: broken XML: mismatched tag"),
    ("<a>\n&b;</a>", "x.xml:2: broken XML: undefined entity"),
    ('<?xml version="1.0" encoding="none"?><a/>', "x.xml:1: broken XML: unknown encoding"),
    ('<!DOCTYPE a [\n<!ENTITY b "c">]><a/>', "x.xml:2: entity 'b' is declared"),
    ('<!DOCTYPE a [\n<!ENTITY % b SYSTEM "file:///etc/passwd">]><a/>', "x.xml:2: entity 'b' is declared"),
    ("<a>" * 51 + "</a>" * 51, "x.xml:1: nested more than 50 levels deep"),
])  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(FieldmarkError) as error:
        strict_xml.loads(text.encode(), "x.xml")
    assert str(error.value).startswith(message)
