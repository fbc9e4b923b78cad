"""A page that shows what context and phrases did: words, phrases, waveform, attended context words on one time axis."""

import base64
import html
import io
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import east_asian_width

import matplotlib.image
import numpy as np

from cwjax.data.audio.log_mel import SAMPLING_RATE
from cwjax.evaluation.differences import compare
from cwjax.evaluation.explanation import COLUMN_SECONDS, ExplainedWindow, Explanation
from cwjax.inference.phrases import NEARBY, occurrences
from cwjax.inference.transcript import Transcript, Word
from cwjax.inference.writers import timestamp
from cwjax.pages import render

ROW_SECONDS = 10.0
"""Audio that fits into the width of the page."""
LINE_HEIGHT = 1.4
"""Of a line of words, in rem."""
SECONDS_OF_A_LETTER = 0.085
"""How much of the time axis a letter takes at most; where the page is too narrow for that, rows can be scrolled."""
WORDS_SHOWN = 8
"""Context words in the map of a row."""
WAVE_POINTS = 400
"""Columns of a full row's waveform."""
MAP_COLOUR = (47, 125, 225)
"""Of the map, on light and dark paper alike; influence is its opacity."""


_STYLE = Path(__file__).with_name("explanation.css").read_text(encoding="utf-8")
_SCRIPT = Path(__file__).with_name("explanation.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class _Heard:
    """A word of the transcript.

    Attributes:
        word: itself.
        was: what stands in its place in the other transcript, None where nothing changed.
        is_phrase: whether it belongs to a phrase that was heard.
    """

    word: Word
    was: str | None = None
    is_phrase: bool = False


@dataclass(frozen=True)
class _Row:
    """A stretch of a window that is drawn beside its map: `columns` are those of the window."""

    window: ExplainedWindow
    columns: slice
    heard: tuple[_Heard, ...] = ()
    phrases: tuple[Word, ...] = ()

    @property
    def start(self) -> float:
        return self.window.start + self.columns.start * COLUMN_SECONDS

    @property
    def end(self) -> float:
        return self.window.start + self.columns.stop * COLUMN_SECONDS


def explanation_page(
    title: str, audio: str, samples: np.ndarray, transcript: Transcript, without: Transcript, explanation: Explanation
) -> str:
    """The page as HTML that needs nothing but itself.

    Args:
        title: what was transcribed.
        audio: address of the sound, such as `cwjax.pages.audio_uri` makes, or a path relative to the page.
        samples: of the recording at 16 kHz, (n,) float32.
        transcript: made with the context and with phrases, or one of them; with word times, or else whole segments
            are shown.
        without: made without either.
        explanation: of the same recording.
    """
    heard = _marked_words(transcript, without)
    phrases = transcript.phrases
    rows = list(_rows(explanation, heard, phrases))
    told = " and ".join(["context"] * bool(explanation.words) + ["phrases"] * bool(phrases or not explanation.words))
    painter = _Painter(explanation, samples, told)
    said = [
        "<h2>What was said about the recording</h2>",
        f"<blockquote>{html.escape(explanation.context)}</blockquote>",
        _strongest_words(explanation),
    ]
    parts = [
        *(said if explanation.words else ()),
        *(("<h2>Phrases that were heard</h2>", _phrase_table(heard, phrases)) if "phrases" in told else ()),
        "<h2>What changed</h2>",
        _changes(heard, told),
        f"<h2>{'What the model attended to' if explanation.words else 'When it was said'}</h2>",
        f"<p>{_LEGEND}{_MAP_LEGEND if explanation.words else ''}</p>",
        *(painter.row(row) for row in rows),
    ]
    page = {"title": title, "headline": _headline(heard, told), "audio": audio, "body": "\n".join(parts)}
    return render("explanation.html", **page, style=_STYLE, script=_SCRIPT)


def _timed_words(transcript: Transcript) -> list[Word]:
    words: list[Word] = []
    for segment in transcript.segments:
        timed = [word for word in segment.words or () if word.text.strip()]
        if not timed and segment.text.strip():
            timed = [Word(segment.text, segment.start, segment.end, 1.0)]
        words += timed
    return words


def _marked_words(transcript: Transcript, without: Transcript) -> list[_Heard]:
    """The transcript's words; where the other has more words, the word after them, or the last, has them in `was`."""
    words, plain = _timed_words(transcript), _timed_words(without)
    heard = [_Heard(word) for word in words]
    for stretch in compare([word.text for word in plain], [word.text for word in words]):
        if stretch.same or not heard:
            continue
        was = "".join(plain[place].text for place in stretch.first).strip()
        for place in stretch.second or [min(stretch.second.start, len(heard) - 1)]:
            added = was if place == stretch.second.start or not stretch.second else ""
            earlier = heard[place].was
            heard[place] = _Heard(words[place], f"{earlier} {added}".strip() if earlier else added)
    for phrase in {phrase.text: phrase for phrase in transcript.phrases}.values():
        for place in itertools.chain(*_written(phrase, heard)):
            heard[place] = replace(heard[place], is_phrase=True)
    return heard


def _written(phrase: Word, heard: Sequence[_Heard]) -> list[range]:
    """The words that a phrase consists of, wherever it stands."""
    ends = list(itertools.accumulate(len(one.word.text) for one in heard))
    found = occurrences(phrase.text, "".join(one.word.text for one in heard))
    return [range(bisect_right(ends, text[0]), bisect_right(ends, text[-1]) + 1) for text in found]


def _place(phrase: Word, heard: Sequence[_Heard]) -> range:
    """The words that stand where a phrase was heard: its own, or else the nearest one."""
    middle = (phrase.start + phrase.end) / 2

    def distance(part: range) -> float:
        return max(0.0, heard[part[0]].word.start - middle, middle - heard[part[-1]].word.end)

    own = [part for part in _written(phrase, heard) if distance(part) < NEARBY]
    others = (range(place, place + 1) for place in range(len(heard)))
    return min(own, key=distance, default=None) or min(others, key=distance, default=range(0))


def _phrase_table(heard: Sequence[_Heard], phrases: Sequence[Word]) -> str:
    """What was heard of the phrases, what is written there, and what is without them."""
    lines = []
    for phrase in phrases:
        places = _place(phrase, heard)
        now = "".join(heard[place].word.text for place in places).strip()
        was = " ".join(one.word.text.strip() if one.was is None else one.was for one in map(heard.__getitem__, places))
        probability = f"<span class=bar style='width:{80 * phrase.probability:.0f}px'></span>"
        lines.append(
            f"<tr><td>{_button(phrase, timestamp(phrase.start))}<th>{html.escape(phrase.text)}"
            f"<td>{probability}{_percent(phrase.probability)}"
            + "".join(f"<td>{html.escape(text) or '–'}" for text in (now, was.strip()))
        )
    head = "<tr><th>time<th>phrase<th>probability<th>written<th>without"
    return f"<div class=scroll><table>{head}{''.join(lines)}</table></div>" if lines else "<p>None.</p>"


def _rows(explanation: Explanation, heard: Sequence[_Heard], phrases: Sequence[Word]) -> Iterator[_Row]:
    """Rows of at most ten seconds; words and phrases stand in the row in which they begin, or else in the nearest."""
    step = round(ROW_SECONDS / COLUMN_SECONDS)
    empty: list[_Row] = []
    for window in explanation.windows:
        columns = window.others.shape[1]
        empty += [_Row(window, slice(first, min(first + step, columns))) for first in range(0, columns, step)]
    if not empty:
        return
    starts = np.array([row.start for row in empty])

    def place(word: Word) -> int:
        return max(int(np.searchsorted(starts, word.start + 1e-6)) - 1, 0)

    for number, row in enumerate(empty):
        own = tuple(one for one in heard if place(one.word) == number)
        yield _Row(row.window, row.columns, own, tuple(phrase for phrase in phrases if place(phrase) == number))


def _headline(heard: Sequence[_Heard], told: str) -> str:
    changed = sum(one.was is not None for one in heard)
    change = "changes" if told == "context" else "change"
    of = f"<b>{changed}</b> of" if changed else "none of the"
    return f"The {told} {change} {of} <b>{len(heard)}</b> words that were heard."


def _changes(heard: Sequence[_Heard], told: str) -> str:
    items = [
        f"<li>{_button(one.word, timestamp(one.word.start))} “{html.escape(one.word.text.strip())}”, without {told} "
        + (f"“{html.escape(one.was)}”" if one.was else "nothing of its own")
        for one in heard
        if one.was is not None
    ]
    return f"<ul class=changes>{''.join(items)}</ul>" if items else "<p>Nothing.</p>"


def _strongest_words(explanation: Explanation) -> str:
    """The context words by their share in all that the context added."""
    totals = np.zeros(len(explanation.words) + 1)
    for window in explanation.windows:
        np.add.at(totals, list(window.words), window.influence.sum(axis=(0, 2)))
        totals[-1] += window.others.sum()
    if not totals.sum():
        return "<p>Nothing of it reached the audio: the context's gates are closed.</p>"
    shares = totals / totals.sum()
    order = [place for place in np.argsort(-shares[:-1], kind="stable")[:WORDS_SHOWN] if shares[place] > 0]
    names = [*(explanation.words[place] for place in order), "all else"]
    values = [*shares[order], 1 - shares[order].sum()]
    rows = "".join(
        f"<tr><th>{html.escape(name)}<td><span class=bar style='width:{240 * value:.0f}px'></span>{_percent(value)}"
        for name, value in zip(names, values, strict=True)
    )
    return f"<table><caption>Share in what the context added to the sound</caption>{rows}</table>"


class _Painter:
    """Draws rows on scales that all rows share."""

    def __init__(self, explanation: Explanation, samples: np.ndarray, told: str):
        self._explanation, self._samples, self._told = explanation, samples, told
        self._loudest = max(float(np.abs(samples).max(initial=0)), 1e-6)
        windows = explanation.windows
        # A few outliers may exceed the full colour, so that the rest is not pale.
        self._summed_scale = _high_value([window.influence.sum(axis=0) for window in windows])
        self._layer_scale = _high_value([window.influence for window in windows])

    def row(self, row: _Row) -> str:
        """A section with words, waveform, map and its alternatives in text."""
        span = f"{timestamp(row.start)[:-2]} to {timestamp(row.end)[:-2]}"
        width = f"style='width:{100 * (row.end - row.start) / ROW_SECONDS:.1f}%'"
        lane = f"{_placed_words(row)}{_placed_phrases(row)}{self._waveform(row)}"
        return (
            f"<section class=row aria-label='{span}' data-from={row.start:.2f} data-to={row.end:.2f}>"
            f"<div class=time>{span}</div><div class=lane {width}>{lane}</div>"
            + (self._maps(row, span, width) if self._explanation.words else "")
            + f"<details><summary>as a table</summary>{self._table(row)}</details></section>"
        )

    def _maps(self, row: _Row, span: str, width: str) -> str:
        """What was attended to: of all layers together, and of each."""
        window = row.window
        influence = window.influence[:, :, row.columns]
        totals = influence.sum(axis=(0, 2))
        everything = totals.sum() + window.others[:, row.columns].sum()
        shown = np.sort(np.argsort(-totals, kind="stable")[:WORDS_SHOWN])
        names = [self._explanation.words[window.words[place]] for place in shown]
        shares = totals[shown] / everything if everything else totals[shown]
        strongest = sorted(zip(shares, names, strict=True), key=lambda pair: -pair[0])[:3]
        told = ", ".join(f"{name} {_percent(share)}" for share, name in strongest if share > 0) or "nothing"
        labels = "".join(f"<li>{html.escape(name)}" for name in names)
        chart = _image(influence[:, shown].sum(axis=0), self._summed_scale, f"Most attended from {span}: {told}")
        layers = "".join(
            f"<p class=layer>layer {layer}<ol class=labels>{labels}</ol><div class=lane {width}>"
            f"{_image(influence[place, shown], self._layer_scale, f'layer {layer}')}</div>"
            for place, layer in enumerate(self._explanation.layers)
        )
        return (
            f"<ol class=labels>{labels}</ol><div class=lane {width}>{chart}</div>"
            f"<details><summary>layer by layer</summary><div class=grid>{layers}</div></details>"
        )

    def _waveform(self, row: _Row) -> str:
        """Highest and lowest sample of every column, as an area, over the places of phrases."""
        first, last = round(row.start * SAMPLING_RATE), round(row.end * SAMPLING_RATE)
        clip = self._samples[first:last]
        clip = np.pad(clip, (0, last - first - len(clip)))
        points = max(1, round(WAVE_POINTS * (row.end - row.start) / ROW_SECONDS))
        edges = np.linspace(0, len(clip), points, endpoint=False).astype(int)
        high = 30 - 29 * np.maximum.reduceat(clip, edges) / self._loudest
        low = 31 - 29 * np.minimum.reduceat(clip, edges) / self._loudest
        outline = [*enumerate(high), *reversed(list(enumerate(low)))]
        seconds = points / (row.end - row.start)
        phrases = "".join(
            f"<rect x={(one.start - row.start) * seconds:.1f} width={(one.end - one.start) * seconds:.1f} height=60 />"
            for one in row.phrases
        )
        path = "M" + "L".join(f"{x} {y:.0f}" for x, y in outline) + "Z"
        return (
            f"<svg class=wave viewBox='0 0 {points} 60' preserveAspectRatio=none role=img aria-label='waveform'>"
            f"{phrases}<path d='{path}'/></svg>"
        )

    def _table(self, row: _Row) -> str:
        """What the map shows, for every word that was heard."""
        lines = []
        for one in row.heard:
            strongest = ", ".join(
                f"{html.escape(name)} {_percent(share)}" for name, share in self._shares(one.word, row)
            )
            was = "" if one.was is None else f"“{html.escape(one.was)}”" if one.was else "nothing of its own"
            said = html.escape(one.word.text.strip())
            attended = f"<td>{strongest}" if self._explanation.words else ""
            lines.append(f"<tr><td>{timestamp(one.word.start)}<td>{said}<td>{was}{attended}")
        attended = "<th>context words attended to" if self._explanation.words else ""
        head = f"<tr><th>time<th>heard<th>without {self._told}{attended}"
        return f"<table>{head}{''.join(lines)}</table>" if lines else "<p>No word was heard.</p>"

    def _shares(self, word: Word, row: _Row) -> list[tuple[str, float]]:
        """The three context words that added most while a word was spoken, by their share."""
        window = row.window
        last = window.others.shape[1]
        first = min(max(int((word.start - window.start) / COLUMN_SECONDS), 0), last - 1)
        columns = slice(first, max(first + 1, min(round((word.end - window.start) / COLUMN_SECONDS), last)))
        totals = window.influence[:, :, columns].sum(axis=(0, 2))
        everything = totals.sum() + window.others[:, columns].sum()
        order = [place for place in np.argsort(-totals, kind="stable")[:3] if totals[place] > 0]
        return [(self._explanation.words[window.words[place]], totals[place] / everything) for place in order]


def _placed_words(row: _Row) -> str:
    """Words over the places where they begin, or before the right edge, in as many lines as give all of them room.

    What was heard without context stands below all words, in lines of its own.
    """
    edge = row.start + ROW_SECONDS
    word_ends: list[float] = []
    note_ends: list[float] = []
    placed = []
    for one in row.heard:
        text = one.word.text.strip()
        note = "" if one.was is None else f"without: {one.was or '–'}"
        start = max(row.start, min(one.word.start, edge - max(_width(text), _width(note))))
        line = _free_line(word_ends, start, _width(text))
        placed.append((one, text, note, start, line, _free_line(note_ends, start, _width(note)) if note else 0))
    pieces = []
    for one, text, note, start, line, note_line in placed:
        shown = html.escape(text)
        if note:
            below = LINE_HEIGHT * (len(word_ends) - line + note_line)
            shown = f"<mark>{shown}</mark><small style='top:{below:.1f}rem'>{html.escape(note)}</small>"
        left = 100 * (start - row.start) / (row.end - row.start)
        where = f"left:{left:.2f}%;top:{LINE_HEIGHT * line:.1f}rem"
        kind = "word phrase" if one.is_phrase else "word"
        pieces.append(f"<span class=place style='{where}'>{_button(one.word, shown, kind)}</span>")
    height = LINE_HEIGHT * (len(word_ends) + len(note_ends))
    return f"<div class=words style='height:{height:.1f}rem'>{''.join(pieces)}</div>"


def _placed_phrases(row: _Row) -> str:
    """Phrases and their probabilities over the places where they were heard."""
    ends: list[float] = []
    pieces = []
    for phrase in row.phrases:
        text = f"{phrase.text} {_percent(phrase.probability)}"
        start = max(row.start, min(phrase.start, row.start + ROW_SECONDS - _width(text)))
        top, left = LINE_HEIGHT * _free_line(ends, start, _width(text)), 100 * (start - row.start) / ROW_SECONDS
        left *= ROW_SECONDS / (row.end - row.start)
        pieces.append(f"<span class=place style='left:{left:.2f}%;top:{top:.1f}rem'>{html.escape(text)}</span>")
    return f"<div class=phrases style='height:{LINE_HEIGHT * len(ends):.1f}rem'>{''.join(pieces)}</div>"


def _width(text: str) -> float:
    """Of a text and a space, in seconds; Chinese characters are as wide as two letters."""
    return SECONDS_OF_A_LETTER * (len(text) + 1 + sum(east_asian_width(letter) in "WF" for letter in text))


def _free_line(ends: list[float], start: float, width: float) -> int:
    """The first line that has room from `start` on, a new one if none has; `ends` says how far each is filled."""
    line = next((line for line, end in enumerate(ends) if end <= start), len(ends))
    ends[line : line + 1] = [start + width]
    return line


def _button(word: Word, content: str, kind: str = "word") -> str:
    return f"<button type=button class='{kind}' data-start={word.start:.2f} data-end={word.end:.2f}>{content}</button>"


def _image(values: np.ndarray, scale: float, description: str) -> str:
    """A map (W, N) as a picture with one pixel for each value."""
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = MAP_COLOUR
    pixels[..., 3] = np.round(255 * np.clip(values / scale, 0, 1))
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f"height:{1.2 * len(values):.1f}rem"
    return f"<img class=map style='{style}' alt='{html.escape(description)}' src='data:image/png;base64,{data}'>"


def _high_value(maps: Sequence[np.ndarray]) -> float:
    values = np.concatenate([np.zeros(1), *(one.ravel() for one in maps)])
    return max(float(np.quantile(values, 0.995)), 1e-12)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "below 1 %"


_LEGEND = (
    "Each row is a stretch of the recording: its words, the phrases that were heard, with their probabilities, and its "
    "waveform. Words that changed are underlined, with what is heard without; those of phrases have a green line. "
    "Choose a word to hear it. "
)
_MAP_LEGEND = (
    "Below stand the context words that added most, in the order of the context. The fuller the colour, the longer the "
    "vectors that a word added to what the audio encoder heard there: attention weight times value, through the gate, "
    "summed over layers."
)
