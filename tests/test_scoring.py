"""`cwjax score`: files of any system in, figures out; bad files in a line each."""

import json
import random
import re
import tracemalloc
from pathlib import Path

import pytest

from cwjax.cli import main
from cwjax.errors import CwjaxError
from cwjax.scoring.measures import MEASURES
from cwjax.scoring.normalisers import NORMALISERS
from cwjax.scoring.score import FIELDS, clusters_of, score_files, summarise
from cwjax.scoring.uncertainty import share_interval

SAID = {"a": "The cat sat on the mat.", "b": "hello world", "c": "nothing"}
HEARD = {"a": "the cat sat on mat", "b": "hello word", "c": ""}


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines), "utf-8")
    return path


def written(folder: Path, suffix: str, texts: dict[str, str], name: str) -> Path:
    lines = {
        "jsonl": [{"id": key, "text": text} for key, text in texts.items()],
        "tsv": [f"{key}\t{text}" for key, text in texts.items()],
        "trn": [f"{text} ({key})" for key, text in texts.items()],
        "ctm": [
            f"{key} A {start} 0.2 {word} 0.9"
            for key, text in texts.items()
            for start, word in reversed(list(enumerate(text.split())))
        ],
    }[suffix]
    return write(folder / f"{name}.{suffix}", [";; a comment", *lines] if suffix == "ctm" else lines)


def rates(*arguments, **options) -> dict:
    return next(iter(summarise(score_files(*arguments, **options))["runs"].values()))["rates"]


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "trn", "ctm"])
@pytest.mark.parametrize("named", [True, False])
def test_all_formats_give_the_same(suffix: str, named: bool, tmp_path: Path) -> None:
    texts = {key: text for key, text in HEARD.items() if text or suffix != "ctm"}
    files = [written(tmp_path, suffix, texts, "heard"), written(tmp_path, suffix, SAID, "said")]
    if not named:
        files = [file.rename(file.with_suffix(".txt")) for file in files]
    wer = rates([files[0]], files[1])["WER"]
    assert wer["errors"] == [1, 1 + (suffix != "ctm"), 0]
    assert wer["rate"] == pytest.approx((2 + (suffix != "ctm")) / (8 + (suffix != "ctm")))


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(0)
    lines = []
    for number in range(60):
        said = [chance.choice("abcdefgh") * 3 for _ in range(12)]
        for condition, share in (("none", 0.3), ("right", 0.1)):
            heard = [word if chance.random() > share else "zzz" for word in said]
            lines.append(
                {
                    "id": f"u{number}",
                    "speaker": f"s{number % 12}",
                    "recording": f"r{number % 20}",
                    "topic": "\x1b[31mred" if number % 2 else "blue",
                    "condition": condition,
                    "reference": " ".join(said),
                    "hypothesis": " ".join(heard),
                    "bias_words": [said[0]],
                    "words": [{"word": "x", "start": 0, "end": 1}],
                }
            )
    file, output = write(tmp_path / "hypotheses.jsonl", lines), tmp_path / "scores.json"
    assert main(["score", str(file), "--by", "topic", "--json", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "95 % intervals, over 12 speakers" in printed
    assert "\x1b" not in printed
    for title in ("WER, %", "CER, %", "U-WER, %", "B-WER, %", "MAPSSWE p 0.000", "recordings: "):
        assert title in printed
    found = json.loads(output.read_text("utf-8"))
    none, right = (found["runs"][f"hypotheses.jsonl: {name}"] for name in ("none", "right"))
    assert right["rates"]["WER"]["high"] < none["rates"]["WER"]["low"]
    assert none["by"]["blue"]["utterances"] == 30
    (pair,) = found["pairs"]
    apart = right["rates"]["WER"]["rate"] - none["rates"]["WER"]["rate"]
    assert pair["rates"]["WER"]["difference"] == pytest.approx(apart)
    assert pair["rates"]["WER"]["p"] < 0.01
    assert sum(pair["recordings"][name] for name in ("better", "equal", "worse")) == 20


def test_several_files_are_compared_where_both_have_an_utterance(tmp_path: Path) -> None:
    said = written(tmp_path, "trn", SAID, "said")
    first = written(tmp_path, "tsv", HEARD, "first")
    second = written(tmp_path, "jsonl", {"a": SAID["a"], "b": SAID["b"], "z": "strange"}, "second")
    found = summarise(score_files([first, second], said))
    assert found["notes"] == [
        f"{second}: 1 of its ids without a reference, left out: z",
        f"{said}: 1 of its ids not in second.jsonl, left out: c",
        "first.tsv and second.jsonl: 1 utterances in one only, left out of the comparison: c",
    ]
    (pair,) = found["pairs"]
    assert pair["utterances"] == 2
    intervals = pair["recordings"].pop("intervals")
    assert pair["recordings"] == {"of": "utterances", "better": 2, "equal": 0, "worse": 0}
    assert intervals["better"] == pytest.approx(share_interval([1, 1], [1, 1]))
    assert intervals["worse"] == pytest.approx(share_interval([0, 0], [1, 1]))


def test_lists_of_is21_come_from_their_own_file(tmp_path: Path) -> None:
    lists = write(tmp_path / "lists.tsv", ['a\tthe cat sat\t["cat"]\t["cat", "dog"]', 'b\thello world\t["world"]\t[]'])
    heard = write(tmp_path / "heard.tsv", ["a\tthe cat sad", "b\thello word"])
    found = rates([heard], lists, normaliser_name="is21")
    assert (found["B-WER"]["rate"], found["B-WER"]["of"]) == (0.5, 2)
    assert (found["U-WER"]["rate"], found["U-WER"]["of"]) == (pytest.approx(1 / 3), 3)
    apart = rates([heard], written(tmp_path, "trn", {"a": "the cat sat", "b": "hello world"}, "said"), lists)
    assert apart["B-WER"]["rate"] == 0.5


def test_homophones_cluster_by_pair(tmp_path: Path) -> None:
    lines = [
        {"id": f"{pair}{n}", "reference": f"the {word} here", "hypothesis": f"the {word if n else other} here"}
        | {"homophone": {"word": word, "partner": other}, "speaker": f"s{n}{pair}"}
        for pair, (word, other) in enumerate([("sail", "sale"), ("sale", "sail"), ("cent", "scent")])
        for n in range(4)
    ]
    scores = score_files([write(tmp_path / "h.jsonl", lines)])
    (run,) = summarise(scores)["runs"].values()
    assert run["clusters"] == {"kind": "cluster", "count": 2}
    assert (run["rates"]["homophones"]["rate"], run["rates"]["homophones"]["of"]) == (0.75, 12)


def test_clusters_are_the_coarsest_that_are_enough() -> None:
    def fields(speakers: int, recordings: int, cluster: str = "") -> dict[str, list[str]]:
        numbers = range(40)
        return {
            "cluster": [cluster and f"{cluster}{n % 3}" for n in numbers],
            "speaker": [f"{n % speakers}" if speakers else "" for n in numbers],
            "recording": [f"{n % recordings}" if recordings else "" for n in numbers],
        }

    kinds = [
        clusters_of(fields(*one))[0] for one in ((10, 20), (20, 10), (2, 20), (1, 1), (0, 0), (0, 5), (9, 9, "item"))
    ]
    assert kinds == ["speaker", "recording", "recording", "utterance", "utterance", "recording", "cluster"]


BAD = {
    "no lines": (b"", "has no lines; expected one for each utterance"),
    "blank": (b"\n \n", "has no lines"),
    "broken JSON": (b'{"id": "a", "hypothesis": "x"}\n{"id": "b", ', "line 2: is no JSON"),
    "no object": (b'{"id": "a", "hypothesis": "x"}\n[1]\n', "line 2: is no JSON object"),
    "no id": (b'{"hypothesis": "x"}\n', "line 1: has no id"),
    "no hypothesis": (b'{"id": "a"}\n', "line 1: has no hypothesis"),
    "NaN": (b'{"id": "a", "hypothesis": NaN}\n', "line 1: hypothesis is nan; expected a text"),
    "number": (b'{"id": "a", "hypothesis": 5}\n', "line 1: hypothesis is 5; expected a text"),
    "lists": (
        b'{"id": "a", "hypothesis": "x", "keywords": "x"}\n',
        "line 1: keywords is 'x'; expected a list of texts",
    ),
    "pair": (
        b'{"id": "a", "hypothesis": "x", "homophone": ["x"]}\n',
        "line 1: homophone is ['x']; expected a word and",
    ),
    "deep": (b'{"id": ' + b"[" * 100_000, "line 1: is no JSON"),
    "NUL": (b"a\tx\nb\tx\0y\n", "line 2: holds a NUL byte"),
    "UTF-16": ("a\tx\n".encode("utf-16"), "line 1: is UTF-16; expected UTF-8"),
    "Latin-1": ("a\tx\nb\tcafé\n".encode("latin-1"), "line 2: byte 6 is no UTF-8"),
    "no tab": (b"a\tx\nb and more\n", "line 2: has no tab; expected id<TAB>text"),
    "no id before the tab": (b"a\tx\n\ty\n", "line 2: has no id before its tab"),
    "third column": (b"a\tx\ty\n", "line 1: its third column is no JSON list"),
    "trn": (b"text (a)\ntext b\n", "line 2: does not end in an id; expected text (id)"),
    "ctm": (b"a 1 0.0 0.2 word\na 1 x 0.2 word\n", "line 2: is 'a 1 x 0.2 word'; expected id channel start"),
    "twice": (b"a\tx\nb\ty\na\tz\n", "line 3: the id 'a' stands in line 1, too"),
    "unknown ids": (b"q\tx\n", "none of its ids has a reference"),
}
ONLY_IN_HYPOTHESES = ("no hypothesis", "NaN", "number", "unknown ids")
"""Files of which references may well be."""


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        *((kind, "hypotheses") for kind in BAD),
        *((kind, "references") for kind in BAD if kind not in ONLY_IN_HYPOTHESES),
    ],
)
def test_bad_files_are_named_in_a_line(
    kind: str, role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD[kind]
    bad = tmp_path / "bad.txt"
    bad.write_bytes(content)
    good = write(tmp_path / "good.tsv", ["a\tx", "b\ty"])
    files = (bad, good) if role == "hypotheses" else (good, bad)
    assert main(["score", str(files[0]), "--references", str(files[1])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cwjax: error: {bad}")
    assert message in line


def test_other_mistakes_are_named_in_a_line(tmp_path: Path) -> None:
    heard, said = (written(tmp_path, "tsv", texts, name) for texts, name in ((HEARD, "heard"), (SAID, "said")))
    with pytest.raises(CwjaxError, match=r"missing.tsv: cannot be read"):
        score_files([tmp_path / "missing.tsv"], said)
    with pytest.raises(CwjaxError, match=r"heard.tsv, line 1: has no reference; expected one under 'reference'"):
        score_files([heard])
    with pytest.raises(CwjaxError, match="--measures keywords: no utterance has keywords"):
        score_files([heard], said, measures=["keywords"])
    own = [write(tmp_path / f"{n}.jsonl", [{"id": "a", "text": "x", "reference": f"x {n}"}]) for n in range(2)]
    with pytest.raises(CwjaxError, match=r"0.jsonl and 1.jsonl: unequal references for a; expected the same"):
        summarise(score_files(own))
    assert main(["score", str(heard), "--references", str(said), "--json", str(said)]) == 1
    assert said.read_text("utf-8").startswith("a\t")


def test_numbers_that_are_none_are_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of nothing said there is no rate, and of one utterance no interval of a difference."""
    files = [write(tmp_path / f"{name}.jsonl", [{"id": "a", "text": name, "reference": ""}]) for name in ("", "x")]
    said = [write(tmp_path / f"{name}2.jsonl", [{"id": "a", "text": name, "reference": "x"}]) for name in ("", "x")]
    for pair in (files, said):
        assert main(["score", *map(str, pair), "--json", str(tmp_path / "scores.json")]) == 0
        printed = capsys.readouterr().out
        assert "?" in printed
        assert not re.search(r"\b(inf|nan)\b", printed)
        json.loads((tmp_path / "scores.json").read_text("utf-8"), parse_constant=pytest.fail)
    scores = score_files(said)
    assert summarise(scores) == summarise(scores)


def test_utterances_without_a_list_are_counted(tmp_path: Path) -> None:
    lines = [{"id": n, "text": "x", "reference": "x", **({"bias_words": []} if n else {})} for n in range(3)]
    scores = score_files([write(tmp_path / "h.jsonl", lines)])
    assert scores.notes == ["h.jsonl: 1 utterances without bias_words, left out of b-wer"]
    assert summarise(scores)["runs"]["h.jsonl"]["rates"]["U-WER"]["of"] == 2


def test_texts_are_not_kept(tmp_path: Path) -> None:
    """What is held of an utterance is far less than its texts."""
    text = " ".join(f"{number:040}" for number in range(200))
    peaks = []
    for count in (1500, 4500):
        lines = ({"id": number, "text": f"{number} {text}", "reference": f"0 {text}"} for number in range(count))
        file = write(tmp_path / "h.jsonl", list(lines))
        tracemalloc.start()
        score_files([file], normaliser_name="none", measures=["wer"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3000 * len(text) / 4


def test_the_command_offers_what_there_is() -> None:
    from cwjax.commands import score

    assert (tuple(NORMALISERS), tuple(MEASURES), FIELDS) == (score.NORMALISERS, score.MEASURES, score.FIELDS)
