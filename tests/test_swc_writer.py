import pytest
from lxml import etree

from cwjax.demo.swc_writer import (
    SpokenArticle,
    SpokenWordTime,
    WrittenToken,
    aligned_swc,
    folder_name,
    surface_text,
    tokenize,
    wiki_html,
)


@pytest.mark.parametrize(
    ("title", "folder"),
    [
        ("Wakefield, Massachusetts", "Wakefield%2c_Massachusetts"),
        ("(I Can't Get No) Satisfaction", "(I_Can%27t_Get_No)_Satisfaction"),
        ("Arsenal F.C.", "Arsenal_F.C%2e"),
        ("0.999...", "0.999..%2e"),
        ('"Heroes": a/b', "%22Heroes%22%3a_a%2fb"),
        ("Café & Bar!", "Caf%c3%a9_&_Bar!"),
    ],
)
def test_folders_are_named_as_in_the_corpus(title, folder):
    assert folder_name(title) == folder


def test_tokens_keep_the_spacing():
    text = "Oaks (old ones), maples & firs."
    tokens = tokenize(text)
    assert surface_text(tokens) == text
    assert [token.surface for token in tokens if token.spoken] == ["Oaks", "old", "ones", "maples", "firs"]


def test_markup_in_the_text_is_escaped():
    sentence = (WrittenToken('A<"B"', False, (SpokenWordTime('a "b" & c', 10, 200),)), *tokenize(" & C >."))
    article = SpokenArticle(
        title='<Q> & "A"',
        reader="Jo & Co",
        accent="en",
        audio=(("audio.ogg", 0),),
        announcement=sentence,
        lead=(sentence,),
        sections=((tokenize("D<"), (sentence,)),),
        categories=(),
        ignored=True,
    )
    document = etree.fromstring(aligned_swc(article).encode())
    assert document.find("meta/prop[@key='DC.title']").get("value") == '<Q> & "A"'
    assert document.find("d/extra").get("text") == 'A<"B" & C >.'
    spoken = document.find("d/p/s/t/n")
    assert (spoken.get("pronunciation"), spoken.get("start"), spoken.get("end")) == ('a "b" & c', "10", "200")
    page = "".join(etree.HTML(wiki_html(article)).itertext())
    assert "".join(page.split()) == "".join("".join(document.find("d").itertext()).split())
    assert 'A<"B" &[1] C >.' in page
