"""When the words of an article are spoken, as far as the alignment can be trusted.

About one word in ten of the Spoken Wikipedia has no time, mostly a function word between two timed
ones. Keeping only fully timed sentences would keep a tenth of the audio, so a run of untimed words
is accepted wherever the gap between its timed neighbours is about as long as saying it takes. What
cannot be accepted is a *hole*; between the holes lie the *spans*, in which every word gets a time.

All times are milliseconds on the article's timeline.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.text import Token, is_spoken

LARGEST_OVERLAP = 100  # by which a word may begin before the last one ended; at most 90 in the corpus

Span = tuple[int, int]
"""The first word and the one after the last."""


@dataclass(slots=True)
class Word:
    """A token that is spoken.

    Attributes:
        token: its number.
        begin, finish: range of tokens, the word with the punctuation that belongs to it.
        characters: of all its spoken forms.
        sentence, paragraph: as in `Token`.
        is_extra: part of a guessed announcement.
        head, tail: characters of untimed forms before the first and after the last timed one
            ("1938" may lack the time of its "eight").
        heard_start, heard_end: of the timed forms; None if there are none or they are not trusted.
        start, end: of the whole word; an estimate where it was not measured, None outside spans.
    """

    token: int
    begin: int
    finish: int
    characters: int
    sentence: int
    paragraph: int
    is_extra: bool
    head: int
    tail: int
    heard_start: float | None
    heard_end: float | None
    start: float | None = None
    end: float | None = None

    @property
    def is_heard(self) -> bool:
        """A part was measured."""
        return self.heard_start is not None

    @property
    def is_timed(self) -> bool:
        """Start and end were measured."""
        return self.heard_start is not None and self.head == 0 == self.tail

    @property
    def is_anchor(self) -> bool:
        """Start or end was measured."""
        return self.heard_start is not None and (self.head == 0 or self.tail == 0)

    @property
    def known_start(self) -> float | None:
        """As estimated, or, outside spans, as heard; `known_end` likewise."""
        return self.heard_start if self.start is None else self.start

    @property
    def known_end(self) -> float | None:
        """See `known_start`."""
        return self.heard_end if self.end is None else self.end


def read_words(tokens: Sequence[Token]) -> list[Word]:
    """The spoken tokens in order, extras among them."""
    words = [word for number, token in enumerate(tokens) if (word := _word(number, token)).characters]
    for before, word in pairwise(words):
        # Punctuation written next to a word belongs to it, be it in its sentence or not (a closing quotation mark may
        # open the next one); other punctuation belongs to the end of its sentence.
        for number in range(before.token + 1, word.token):
            mark = tokens[number]
            if mark.space_before and (before.sentence == word.sentence or mark.sentence != before.sentence):
                word.begin = number
                break
        before.finish = word.begin
    if words:
        words[0].begin, words[-1].finish = 0, len(tokens)
    return words


def _word(number: int, token: Token) -> Word:
    characters = head = tail = 0
    heard_start = heard_end = None
    for pronunciation, start, end in token.norms:
        if not is_spoken(pronunciation):
            continue
        characters += len(pronunciation)
        if start is not None:
            heard_start, heard_end, tail = start if heard_start is None else heard_start, end, 0
        elif heard_start is None:
            head += len(pronunciation)
        else:
            tail += len(pronunciation)
    place = number, number, number + 1
    what = characters, token.sentence, token.paragraph, token.kind == "extra"
    return Word(*place, *what, head, tail, heard_start, heard_end)


def speaking_rate(words: Sequence[Word]) -> float:
    """Median milliseconds per character of the fully timed words of three characters or more, or 0."""
    usual = [word for word in words if word.is_timed and word.characters >= 3 and not word.is_extra]
    return median((word.heard_end - word.heard_start) / word.characters for word in usual) if usual else 0.0


def forget_bad_times(
    words: Sequence[Word], rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> None:
    """Drop times that cannot be right: far too long or short, over a file's end, or out of order.

    `borders` are the ends of the audio files, ascending; nothing is spoken after the last.
    """
    last_start = last_end = 0.0
    for word in words:
        if not word.is_heard:
            continue
        start, end, expected = word.heard_start, word.heard_end, rate * word.characters
        longest = max(settings.longest_word * 1000, settings.longest_word_ratio * expected)
        shortest = settings.shortest_word_ratio * expected if word.characters >= 4 else 0
        is_bad = (
            (word.is_timed and not shortest <= end - start <= longest)
            or end <= start
            or start >= borders[-1]
            or bisect_right(borders, start) < bisect_left(borders, end)
            or start < max(last_start, last_end - LARGEST_OVERLAP)
            or end < last_end
        )
        if is_bad:
            word.heard_start = word.heard_end = None
        else:
            last_start, last_end = start, end


def find_spans(
    words: Sequence[Word], rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> tuple[list[Span], Counter[str]]:
    """Stretches without a hole, each from one measured word to another, and the holes by kind.

    What makes a hole of the untimed words between two others: `file`: the end of an audio file lies between them;
    `sent`: a whole sentence lacks times (it may not have been read); `run`: too many words in a row do; `short`,
    `long`: the gap does not fit the words in it.
    """
    anchors = [number for number, word in enumerate(words) if word.is_anchor]
    measured = {words[number].sentence for number in anchors}
    lengths = Counter(word.sentence for word in words)
    lost = {sentence for sentence, length in lengths.items() if length >= 3 and sentence not in measured}
    spans, holes = [], Counter()
    begin = anchors[0] if anchors else 0
    for before, after in pairwise(anchors):
        if kind := _hole(words[before : after + 1], lost, rate, borders, settings):
            holes[kind] += 1
            spans.append((begin, before + 1))
            begin = after
    return [*spans, (begin, anchors[-1] + 1)] if anchors else [], holes


def _hole(
    words: Sequence[Word], lost: set[int], rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> str:
    """Of which kind the hole between the first and the last word is, or an empty string."""
    before, *untimed, after = words
    if bisect_left(borders, before.heard_end) < bisect_right(borders, after.heard_start):
        return "file"
    if any(word.sentence in lost for word in untimed):
        return "sent"
    if len(untimed) > settings.longest_untimed_run:
        return "run"
    gap, expected = after.heard_start - before.heard_end, rate * _untimed_characters(words)
    if gap < settings.short_gap * expected - settings.short_gap_slack * 1000:
        return "short"
    in_sentence, between_sentences, between_paragraphs = settings.long_gap_slack
    slack = in_sentence if before.sentence == after.sentence else between_sentences
    if before.paragraph != after.paragraph:
        slack = between_paragraphs
    return "long" if gap > settings.long_gap * expected + slack * 1000 else ""


def _untimed_characters(words: Sequence[Word]) -> int:
    """How many characters without a time lie between the measured ends of the first and the last word."""
    return words[0].tail + sum(word.characters for word in words[1:-1]) + words[-1].head


def estimate_times(words: Sequence[Word], spans: Sequence[Span], rate: float) -> None:
    """Set `start` and `end` of every word of the spans.

    Untimed words inside a sentence share the gap by their characters. Where sentences meet they take
    the time they are expected to, and the rest of the gap becomes the pauses between the sentences.
    """
    for first, last in spans:
        for word in words[first:last]:
            word.start, word.end = word.heard_start, word.heard_end
        anchors = [number for number in range(first, last) if words[number].is_anchor]
        for before, after in pairwise(anchors):
            _share_gap(words[before : after + 1], rate)


def _share_gap(words: Sequence[Word], rate: float) -> None:
    """The times of the words between the first and the last, and of the untimed parts of these two."""
    characters = _untimed_characters(words)
    if not characters:
        return
    before, *untimed, after = words
    new_sentences = sum(one.sentence != other.sentence for one, other in pairwise(words))
    gap = max(0, after.heard_start - before.heard_end)
    scale = min(gap / characters, rate) if new_sentences else gap / characters
    pause = (gap - scale * characters) / max(1, new_sentences)
    before.end = before.heard_end + scale * before.tail
    after.start = after.heard_start - scale * after.head
    said = pauses = 0
    for previous, word in pairwise([before, *untimed]):
        said += word.characters
        pauses += word.sentence != previous.sentence
        word.end = before.end + scale * said + pause * pauses
        word.start = word.end - scale * word.characters


def measured_range(words: Sequence[Word], span: Span) -> Span:
    """The part of a span whose first word begins and whose last word ends where it was measured."""
    first, last = span
    heard = [number for number in range(first, last) if words[number].is_heard]
    begin = next((number for number in heard if words[number].head == 0), last)
    finish = next((number + 1 for number in reversed(heard) if words[number].tail == 0), first)
    return begin, max(begin, finish)
