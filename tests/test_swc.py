"""Reading article folders of the Spoken Wikipedia Corpus."""

import json
from pathlib import Path

import pytest
from lxml import etree

from cwjax.data.corpora.swc import reader as swc_corpus
from cwjax.data.corpora.swc.article import read_article, reader_key, with_durations
from cwjax.data.corpora.swc.text import Norm
from cwjax.errors import CwjaxError

GOLDEN = Path(__file__).parent / "data" / "Test_Bridge%2c_Ohio"
SCHEMA = Path(__file__).parent / "data" / "swc.rng"
GERMAN = Path(__file__).resolve().parents[1].parent / "shared/fixtures/swc/german"
GERMAN_ARTICLES = ("Radio", "Philosophie")


def write_article(folder: Path, body: str, meta: str = "", **files: str) -> Path:
    """An article folder whose `<d>` holds `body`; keywords are other files by name with _ for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    document = f"<article><meta>{meta}</meta><d>{body}</d></article>"
    (folder / "aligned.swc").write_text(document, encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def word(text: str, start: int | None = None, end: int | None = None) -> str:
    times = "" if start is None else f' start="{start}" end="{end}"'
    return f'<t>{text}<n pronunciation="{text}"{times} /></t>'


HELLO = f"<p><s>{word('Hello', 100, 500)}<t>.</t></s></p>"


def read(folder: Path, **options):
    return read_article(folder, require_audio=False, **options)


def german(name: str) -> Path:
    if not (GERMAN / name).is_dir():
        pytest.skip("the real German articles are not here")
    return GERMAN / name


def test_golden_article_meta_and_parts():
    article = read(GOLDEN)
    assert (article.title, article.language, article.identifier) == (
        "Test Bridge, Ohio",
        "en",
        "Test_Bridge,_Ohio",
    )
    assert article.licence == "CC-BY-SA"
    assert article.source == "https://en.wikipedia.org/wiki/Test_Bridge,_Ohio"
    assert (article.reader, article.reader_key) == ("[[:en:User:Jo Reader|Jo Reader]]", "jo reader")
    assert [(part.path, part.offset) for part in article.audio_parts] == [
        ("Test_Bridge%2c_Ohio/audio1.ogg", 0.0),
        ("Test_Bridge%2c_Ohio/audio2.ogg", 40.0),
    ]


def test_golden_article_text_keeps_order_and_spacing():
    article = read(GOLDEN)
    assert article.text == (
        "Test Bridge (built 1938) spans 5 km – over the A&B river in Ohio. The toll was abolished. History "
        "Main article: History of bridges Work began immediately after approval. Nested paragraph. "
        "Design It is long and straddling audio files."
    )
    lead = "Test Bridge (built 1938) spans 5 km – over the A&B river in Ohio. The toll was abolished."
    assert article.lead == lead


def test_golden_article_tokens():
    article = read(GOLDEN)
    tokens = {token.surface: token for token in article.tokens if token.kind != "extra"}
    year = [(norm.pronunciation, norm.start_ms, norm.end_ms) for norm in tokens["1938"].norms]
    assert year == [("nineteen", 4100, 4500), ("thirty", 4500, 4800), ("eight", None, None)]
    assert len(tokens["A&B"].norms) == 3
    assert tokens["5 km"].space_before
    assert tokens["river"].sentence == tokens["Ohio"].sentence, "the footnote does not cut the sentence"
    assert tokens["The"].sentence != tokens["Ohio"].sentence
    assert tokens["Nested"].paragraph != tokens["Work"].paragraph
    assert tokens["Nested"].paragraph == tokens["paragraph"].paragraph
    assert (tokens["Design"].kind, tokens["Design"].section) == ("title", ("History", "Design"))
    assert tokens["files"].section == ("History", "Design")
    assert tokens["Work"].section == ("History",)
    assert tokens["toll"].is_lead
    assert not tokens["Work"].is_lead
    extra = [token.surface for token in article.tokens if token.kind == "extra"]
    assert extra == ["Test", "Bridge", ",", "OhioFrom", "wikipedia", "."]


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", GERMAN_ARTICLES)
def test_text_of_real_article_is_the_web_page_without_what_is_ignored(name):
    folder = german(name)
    document = etree.parse(folder / "aligned.swc").getroot().find("d")
    page = etree.parse(folder / "wiki.html", etree.HTMLParser(encoding="utf-8")).getroot()
    assert without_spaces("".join(document.itertext())) == without_spaces("".join(page.itertext()))

    etree.strip_elements(document, "ignored", "extra", with_tail=False)
    assert without_spaces(read(folder).text) == without_spaces("".join(document.itertext()))


@pytest.mark.parametrize("name", GERMAN_ARTICLES)
def test_sentences_of_real_article_are_on_the_web_page_as_spaced_there(name):
    folder = german(name)
    page = etree.parse(folder / "wiki.html", etree.HTMLParser(encoding="utf-8")).getroot()
    etree.strip_elements(page, "sup", with_tail=False)
    page_text = " ".join("".join(page.itertext()).split())
    paragraphs: dict[int, list] = {}
    for token in read(folder).tokens:
        if token.kind != "extra":
            paragraphs.setdefault(token.paragraph, []).append(token)
    texts = ["".join(" " * t.space_before + t.surface for t in tokens).strip() for tokens in paragraphs.values()]
    assert len(texts) > 20
    found = [text in page_text for text in texts if len(text) < 2000]
    assert sum(found) / len(found) > 0.9


def test_keywords_and_categories_of_wikitext(tmp_path):
    wikitext = (
        "[[Datei:X.jpg|miniatur|[[Detektor]]s here]] '''A''' [[Funk|Funkempfang]] [[:en:Other thing]] "
        "<!-- [[Commented]] --> [[short]] [[Agent 0007 Film]] [[Star Trek: Discovery]] [[Funk|Funkempfang]]\n"
        "[[Kategorie:Radio| ]] [[category: Old  Things|Key]] [[Categorie:Dingen]] [[fr:Philosophie]]"
    )
    article = read(write_article(tmp_path / "a", HELLO, wiki_txt=wikitext))
    assert article.keywords == ("Detektor", "Funkempfang", "Star Trek: Discovery")
    assert article.categories == ("Radio", "Old Things", "Dingen")


@pytest.mark.parametrize(
    ("reader", "key"),
    [
        ("[[:en:User:Jo Reader|Jo]]", "jo reader"),
        ("S_Whistler", "s whistler"),
        ("User:s  whistler", "s whistler"),
        ("[[Benutzer:Ahoek]]", "ahoek"),
        (":de:Benutzerin:Ahoek", "ahoek"),
        ("[http://example.org Jo Reader]", "jo reader"),
        ("Ｊｏ reader", "jo reader"),
        ("", ""),
    ],
)
def test_reader_key(reader, key):
    assert reader_key(reader) == key


def test_sparse_article_falls_back(tmp_path):
    article = read(write_article(tmp_path / "0.999..%2e_and_%22caf%c3%a9%22", HELLO))
    assert article.title == '0.999... and "café"'
    assert article.identifier == "0.999..%2e_and_%22caf%c3%a9%22"
    assert (article.language, article.reader, article.reader_key, article.licence) == ("", "", "", "")
    assert (article.keywords, article.categories) == ((), ())
    assert [(part.path, part.offset) for part in article.audio_parts] == [(f"{article.identifier}/audio.ogg", 0.0)]


def test_info_json_fills_what_meta_lacks(tmp_path):
    info = {
        "article": {
            "title": "From Info",
            "language": "nl",
            "canonicalurl": "https://x",
            "identifier": "From_Info",
        },
        "article_parsed": {"reader": None},
        "audio_file_parsed": {"reader": "Ada"},
        "audio_files": None,
    }
    article = read(write_article(tmp_path / "a", HELLO, info_json=json.dumps(info)))
    found = (article.title, article.language, article.source, article.identifier, article.reader_key)
    assert found == ("From Info", "nl", "https://x", "From_Info", "ada")


def test_twelve_audio_files_sort_by_number(tmp_path):
    folder = write_article(tmp_path / "a", HELLO)
    for number in range(12, 0, -1):
        (folder / f"audio{number}.ogg").touch()
    parts = read_article(folder, tmp_path).audio_parts
    assert [part.path for part in parts] == [f"a/audio{number}.ogg" for number in range(1, 13)]
    assert [part.offset for part in parts] == [0.0] + [None] * 11
    filled = with_durations(read_article(folder, tmp_path), [2.5] * 12)
    assert [part.offset for part in filled.audio_parts] == [2.5 * number for number in range(12)]


def test_audio_may_have_another_format(tmp_path):
    folder = write_article(tmp_path / "a", HELLO, info_json=json.dumps({"audio_files": [{}, {}]}))
    (folder / "audio1.wav").touch()
    (folder / "audio2.flac").touch()
    assert [part.path for part in read_article(folder).audio_parts] == ["a/audio1.wav", "a/audio2.flac"]


def test_offsets_prefer_info_then_meta(tmp_path):
    meta = "".join(
        f'<prop key="DC.source.audio.offset" value="{value}" group="audio{number}" />'
        for number, value in ((1, "0.0"), (2, "10.5"), (3, "21.25"))
    )
    info = json.dumps({"audio_files": [{"offset": 0.0}, {"offset": 10.0}, {"title": "no offset"}]})
    parts = read(write_article(tmp_path / "a", HELLO, meta, info_json=info)).audio_parts
    assert [part.offset for part in parts] == [0.0, 10.0, 21.25]


def test_offsets_that_run_backwards_are_refused(tmp_path):
    info = json.dumps({"audio_files": [{"offset": 0.0}, {"offset": 20.0}, {"offset": 10.0}]})
    with pytest.raises(CwjaxError, match=r"audio3\.ogg.*not after"):
        read(write_article(tmp_path / "a", HELLO, info_json=info))


def test_comments_instructions_and_carriage_returns_change_nothing(tmp_path):
    plain = f"<p><s>{word('One', 0, 300)} {word('two', 300, 600)}<t>.</t></s>\n</p>"
    noisy = (
        f"<!-- x --><p>\r\n<?pi y?><s><!-- z -->{word('One', 0, 300)}<!-- - --> <?pi?>"
        f'<t>t<!-- in -->wo<n pronunciation="two" start="300" end="600"/></t><t>.</t></s>\r\n</p>'
    )
    articles = [read(write_article(tmp_path / name, body)) for name, body in (("a", plain), ("b", noisy))]
    assert list(articles[0].tokens) == list(articles[1].tokens)
    assert articles[1].text == "One two."


def test_spaces_inside_tokens_and_between_blocks(tmp_path):
    body = (
        f"<p><s><t>z.\xa0B.<n pronunciation='z'/></t>\u2009{word('Funk')}</s></p>"
        f"<p><p><s>{word('one ')}{word('two')}</s></p><s>{word('three')}</s></p>"
        f"<section level='2'><sectiontitle>{word('Title')}</sectiontitle>"
        f"<sectioncontent><s>{word('item')}</s><s>{word('item')}</s></sectioncontent></section>"
    )
    assert read(write_article(tmp_path / "a", body)).text == "z. B. Funk one two three Title item item"


def test_sections_and_paragraphs_end_where_they_do(tmp_path):
    def section(title: str, content: str) -> str:
        return (
            f"<section level='2'><sectiontitle>{word(title)}</sectiontitle>"
            f"<sectioncontent>{content}</sectioncontent></section>"
        )

    inner = section("B", f"<p><s>{word('b')}</s></p>")
    nested = f"<p><s>{word('a')}</s><p><s>{word('inside')}</s></p><s>{word('after')}</s></p>"
    body = section("A", nested + inner) + section("C", f"<s>{word('c')}</s>")
    tokens = {token.surface: token for token in read(write_article(tmp_path / "a", body)).tokens}
    assert {surface: token.section for surface, token in tokens.items()} == {
        **dict.fromkeys(["A", "a", "inside", "after"], ("A",)),
        **dict.fromkeys(["B", "b"], ("A", "B")),
        **dict.fromkeys(["C", "c"], ("C",)),
    }
    assert tokens["a"].paragraph == tokens["after"].paragraph != tokens["inside"].paragraph
    assert not any(token.is_lead for token in tokens.values())


@pytest.mark.parametrize(
    "times",
    [
        "start='300' end='200'",
        "start='-5' end='200'",
        f"start='0' end='{10**400}'",
        f"start='{10**13}' end='{10**13 + 9}'",
        "start='5'",
        "end='5'",
    ],
)
def test_times_that_tell_no_interval_are_none(tmp_path, times):
    body = f"<s><t>a<n pronunciation='a' {times}/></t> {word('b')}</s>"
    first = read(write_article(tmp_path / "a", body)).tokens[0]
    assert first.norms == (Norm("a"),)


def test_phonemes_are_passed_over_however_they_are_written(tmp_path):
    forms = [
        "<ph type='a' start='1' end='2'/>",
        "<ph type='a'></ph>",
        "<ph type='>'/>",
        "<ph type='/'/>",
        "<ph type='a'> </ph>",
        "<ph\ntype='a' />",
        "<ph/>",
    ]
    body = f"<s><t>a<n pronunciation='a' start='10' end='20'>{''.join(forms)}</n></t> {word('b')}</s>"
    tokens = read(write_article(tmp_path / "a", body)).tokens
    assert [token.surface for token in tokens] == ["a", "b"]
    assert tokens[0].norms == (Norm("a", 10, 20),)


def test_footnotes_join_only_unfinished_sentences_of_one_paragraph(tmp_path):
    note = "<ignored><s><t>[</t><t>1<n pronunciation='one'/></t><t>]</t></s></ignored>"
    picture = f"<ignored><s>{word('caption')}</s></ignored>"
    body = (
        f"<p><s>{word('a')}</s>{note}{note}<s><t>,</t> {word('b')}<t>.</t><t>“</t></s>"
        f"{note}<s> {word('c')}</s>{picture}<s>{word('d')}</s></p><p><s>{word('e')}</s></p>"
    )
    article = read(write_article(tmp_path / "a", body))
    sentence = {token.surface: token.sentence for token in article.tokens}
    assert article.text == "a, b.“ c d e"
    assert sentence["a"] == sentence["b"]
    assert len({sentence[letter] for letter in "bcde"}) == 4


def test_article_folders_are_found_three_levels_deep(tmp_path):
    root = tmp_path / "corpus"
    for folder in ("a", "english/b", "x/y/c", "x/y/z/too_deep", "../elsewhere"):
        write_article(root / folder, HELLO)
    write_article(root / "remains", HELLO, info_json="{}")
    (root / "remains" / "aligned.swc").rename(root / "remains" / "audio.ogg")
    (root / "empty").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "english" / "loop").symlink_to(root)
    found = list(swc_corpus.articles(root))
    assert [unit.name for unit in found] == ["a", "english/b", "link", "remains", "x/y/c"]
    assert found[3].audio == ("remains/audio.ogg",)
    assert swc_corpus.looks_like(root)
    assert not swc_corpus.looks_like(root / "empty")


def test_audio_paths_are_relative_to_the_root(tmp_path):
    folder = write_article(tmp_path / "english" / "b", HELLO)
    assert read(folder, root=tmp_path).audio_parts[0].path == "english/b/audio.ogg"


def test_missing_audio_is_named(tmp_path):
    info = json.dumps({"audio_files": [{"offset": 0.0}, {"offset": 10.0}]})
    folder = write_article(tmp_path / "a", HELLO, info_json=info)
    (folder / "audio1.ogg").touch()
    with pytest.raises(CwjaxError, match=r"audio2\.ogg: the audio file is missing"):
        read_article(folder)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("<article><meta/><d/></article>", "no words"),
        ("<article><meta/><d><p>stray<s>text</s></p></d></article>", "no words"),
        ("<article><meta/></article>", "no Spoken Wikipedia article"),
        ("<html/>", "no Spoken Wikipedia article"),
        ("<article><meta/><d><p></d></article>", "not well-formed"),
        ("", "not well-formed"),
        ("<article><d><p>&undefined;</p></d></article>", "not well-formed"),
        (f"<article><d>{HELLO.replace('100', 'soon')}</d></article>", "'soon' to '500'"),
        (f"<article><d>{'<p>' * 220}{HELLO}{'</p>' * 220}</d></article>", "nested|not well-formed"),
        (f'<!DOCTYPE article [<!ENTITY a "b">]><article><d>{HELLO}</d></article>', "DOCTYPE"),
        (f'<!DOCTYPE article SYSTEM "file:///etc/passwd"><article><d>{HELLO}</d></article>', "DOCTYPE"),
    ],
)
def test_unusable_documents_are_named_with_the_reason(tmp_path, document, reason):
    (tmp_path / "aligned.swc").write_text(document)
    with pytest.raises(CwjaxError, match=reason) as caught:
        read(tmp_path)
    assert str(tmp_path / "aligned.swc") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_encodings_do_not_hide_a_document_type(tmp_path):
    declaration = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]>'
    document = f"{declaration}<article><d>{HELLO}</d></article>"
    (tmp_path / "aligned.swc").write_bytes(document.encode("utf-16"))
    with pytest.raises(CwjaxError, match="not well-formed"):
        read(tmp_path)


def test_missing_alignment_and_broken_info_are_named(tmp_path):
    with pytest.raises(CwjaxError, match=r"aligned\.swc: cannot be read"):
        read(tmp_path)
    folder = write_article(tmp_path / "a", HELLO, info_json="{")
    with pytest.raises(CwjaxError, match=r"info\.json: is not valid JSON"):
        read(folder)


def test_times_that_cannot_be_are_no_times(tmp_path):
    body = f"<p><s>{word('a', 500, 500)} {word('b', 600, 100)} {word('c', -5, 100)} {word('d', 1, 2)}</s></p>"
    tokens = read(write_article(tmp_path / "a", body)).tokens
    assert [token.norms[0].start_ms for token in tokens] == [None, None, None, 1]


@pytest.mark.parametrize("name", ["golden", *GERMAN_ARTICLES])
def test_schema_of_the_tests_describes_real_files(name):
    folder = GOLDEN if name == "golden" else german(name)
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    text = (folder / "aligned.swc").read_text(encoding="utf-8")
    plain = "".join(" " if letter.isspace() else letter for letter in text)
    assert schema.validate(etree.fromstring(plain.encode())), schema.error_log
