"""Earnings-21 and Earnings-22 (Del Rio et al. 2021, 2022), with the contexts of ConEC (Huang et al. 2024).

Calls in which companies report their earnings, all for testing: `media/ID.mp3`, and `ID.nlp` in any folder, a word a
line, `token|speaker|ts|endTs|punctuation|...`. Only ConEC's transcripts (`transcripts/timestamps`) have times, of most
words; without them a call is one utterance. What is known about a call: `*metadata.csv` (company, sector), and of
ConEC's `contexts/` the participants (`participant_names/ID.names.txt`) and the words of slides and press releases
(`ID.txt`). Put both below the root.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cwjax.data.corpora.listed_utterances import ListedArticle, ListedUtterance, as_reading
from cwjax.data.corpora.reader import Reading, Unit
from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.telephone import read_lines
from cwjax.data.cuts import TimedWord
from cwjax.data.segment import ContextMaterial
from cwjax.errors import CwjaxError

TITLE = "Earnings-21 or Earnings-22 (media/*.mp3 and *.nlp)"
LICENCE = "CC BY-SA 4.0"
SOURCE = "https://github.com/revdotcom/speech-datasets"
HEAD = "token|speaker|ts|endTs|punctuation"
ENDS = ".?!"
MARGIN = 0.1
"""Seconds left of a pause before the next word, at most."""


@dataclass(frozen=True)
class Token:
    """A word: its text with punctuation, who says it, and start and end in seconds, not a number if unknown."""

    text: str
    speaker: str
    start: float
    end: float

    @property
    def is_last(self) -> bool:
        """Whether a sentence ends with it."""
        return self.text.endswith(tuple(ENDS))


def looks_like(root: Path) -> bool:
    """Whether there is a transcript."""
    path = next(root.rglob("*.nlp"), None)
    return path is not None and next(iter(read_lines(path)), "").startswith(HEAD)


def articles(root: Path) -> Iterator[Unit]:
    """Every call that has a transcript."""
    audio = {path.stem: path for path in sorted(root.rglob("media/*")) if path.suffix in (".mp3", ".wav", ".flac")}
    transcripts: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.nlp")):
        transcripts.setdefault(path.stem, []).append(path.relative_to(root).as_posix())
    facts = _facts(root)
    about = {path.name: path.relative_to(root).as_posix() for path in sorted(root.rglob("contexts/**/*.txt"))}
    for name, paths in sorted(transcripts.items()):
        sound = audio[name].relative_to(root).as_posix() if name in audio else f"media/{name}.mp3"
        contexts = (about.get(f"{name}.names.txt", ""), about.get(f"{name}.txt", ""))
        yield Unit(name, (sound,), (tuple(paths), facts.get(name, {}), contexts))


def _facts(root: Path) -> dict[str, dict[str, str]]:
    """The rows of the tables of calls, by the name of the call."""
    facts: dict[str, dict[str, str]] = {}
    for path in sorted(root.rglob("*metadata.csv")):
        for row in csv.DictReader(read_lines(path)):
            if name := row.get("file_id") or row.get("File ID"):
                facts.setdefault(name, {}).update({key: value or "" for key, value in row.items() if key})
    return facts


def read(root: Path, unit: Unit, limits: SegmentationSettings) -> Reading:
    """Makes segments of a call's sentences, or one of the call if its words have no times.

    Raises CwjaxError if the audio is missing or the transcript holds no word.
    """
    paths, facts, contexts = unit.content
    transcripts = [_tokens(root / path) for path in paths]
    tokens = max(transcripts, key=lambda one: sum(not math.isnan(token.start) for token in one))
    if not tokens:
        raise CwjaxError(f"{root / paths[0]}: holds no word")
    context = _context(root, facts, contexts)
    utterances: list[ListedUtterance] = []
    for number, (start, end, said) in enumerate(_pieces(tokens)):
        words = tuple(TimedWord(one.text, one.start, one.end) for one in said if one.end > one.start)
        name, speaker = f"{unit.name}-{number:04d}", f"{unit.name}/{said[0].speaker}"
        text = " ".join(one.text for one in said)
        utterances.append(ListedUtterance(name, unit.audio[0], start, end, text, speaker, context=context, words=words))
    subset = "earnings22" if "earnings22" in (root.name, *Path(unit.audio[0]).parts) else "earnings21"
    article = ListedArticle(unit.name, utterances, "en", LICENCE, SOURCE, "test", subset)
    return as_reading(root, article, limits)


def _tokens(path: Path) -> list[Token]:
    """The words of a transcript but for marks of sounds, such as `<laugh>`."""
    tokens = []
    for line in read_lines(path)[1:]:
        fields = line.split("|")
        if len(fields) >= 5 and fields[0].strip() and not fields[0].startswith("<"):
            start, end = (float(value) if value.replace(".", "", 1).isdigit() else math.nan for value in fields[2:4])
            tokens.append(Token(fields[0].strip() + fields[4].strip(), fields[1], start, end))
    return tokens


def _pieces(tokens: list[Token]) -> Iterator[tuple[float, float, list[Token]]]:
    """Sentences with start and end (s), several together where nobody knows where one ends and the next begins.

    Words without times lie between those that have some: two sentences can be told apart if those there belong to one.
    """
    start, first, last = 0.0, 0, math.inf
    timed = [place for place, token in enumerate(tokens) if not (math.isnan(token.start) and math.isnan(token.end))]
    if not timed:
        yield 0.0, math.inf, tokens
        return
    if timed[0] == 0 and tokens[0].start > MARGIN:
        start = tokens[0].start - MARGIN
    if timed[-1] == len(tokens) - 1 and not math.isnan(tokens[-1].end):
        last = tokens[-1].end + MARGIN
    following = iter(timed)
    after, before = next(following), None
    for place in range(1, len(tokens)):
        while after is not None and after < place:
            before, after = after, next(following, None)
        if not (tokens[place - 1].is_last or tokens[place - 1].speaker != tokens[place].speaker):
            continue
        if after is None or before is None or not (before == place - 1 or after == place):
            continue
        ends, begins = tokens[before].end, tokens[after].start
        if math.isnan(ends) or math.isnan(begins) or begins < ends:
            continue
        # The pause belongs to the side whose words have no times, or to both.
        cut = (ends + begins) / 2 if before == place - 1 and after == place else begins - min(MARGIN, begins - ends)
        if before == place - 1 and after != place:
            cut = ends + min(MARGIN, begins - ends)
        if cut > start:
            yield round(start, 3), round(cut, 3), tokens[first:place]
            start, first = cut, place
    yield round(start, 3), round(last, 3) if last < math.inf else last, tokens[first:]


def _context(root: Path, facts: dict[str, str], contexts: tuple[str, str]) -> ContextMaterial:
    names, words = (
        [line.strip() for line in read_lines(root / path) if line.strip()] if path else [] for path in contexts
    )
    company = facts.get("company_name") or facts.get("Ticker Symbol", "")
    lead = f"Participants: {'; '.join(names)}." if names else ""
    people = [name.partition(" - ")[0] for name in names]
    return ContextMaterial(
        title=f"Earnings call of {company}" if company else "Earnings call",
        lead=lead,
        categories=tuple(filter(None, (facts.get("sector"), facts.get("Country by Ticker")))),
        keywords=tuple(dict.fromkeys([*people, *(word.partition(" ")[0] for word in words)])),
    )
