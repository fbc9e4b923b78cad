"""When the words of an article are spoken, as far as the alignment can be trusted.

About one word in ten of the Spoken Wikipedia has no time, mostly a function word between two timed
ones. Keeping only fully timed sentences would keep a tenth of the audio, so a run of untimed words
is accepted wherever the gap between its timed neighbours is about as long as saying it takes. What
cannot be accepted is a *hole*; between the holes lie the *spans*, in which every word gets a time.

All times are milliseconds on the article's timeline.
"""

import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cwjax.data.segmentation_settings import SegmentationSettings
from cwjax.data.swc_text import Token

LARGEST_OVERLAP = 100  # by which a word may begin before the last one ended; at most 90 in the corpus


@dataclass(slots=True)
class Word:
    """A token that is spoken.

    Attributes:
        begin, finish: range of tokens, the word with the punctuation that belongs to it.
        characters: of all its spoken forms.
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
    heard_start: int | None
    heard_end: int | None
    start: float | None = None
    end: float | None = None

    @property
    def is_timed(self) -> bool:
        """Start and end were measured."""
        return self.heard_start is not None and self.head == 0 and self.tail == 0

    @property
    def is_anchor(self) -> bool:
        """Start or end was measured."""
        return self.heard_start is not None and (self.head == 0 or self.tail == 0)


def read_words(tokens: Sequence[Token]) -> list[Word]:
    """The spoken tokens in order, extras among them."""
    words: list[Word] = []
    for index, token in enumerate(tokens):
        if token.norms and (word := _as_word(index, token)):
            words.append(word)
    for before, after in pairwise(words):
        before.finish = after.begin = _boundary(tokens, before.token, after.token)
    if words:
        words[0].begin = 0
        words[-1].finish = len(tokens)
    return words


def _as_word(index: int, token: Token) -> Word | None:
    characters = head = tail = 0
    start = end = None
    for norm in token.norms:
        if not norm.is_spoken:
            continue
        length = len(norm.pronunciation)
        characters += length
        if norm.start_ms is not None:
            start, end, tail = norm.start_ms if start is None else start, norm.end_ms, 0
        elif start is None:
            head += length
        else:
            tail += length
    if not characters:
        return None
    is_extra = token.kind == "extra"
    return Word(index, index, index + 1, characters, token.sentence, token.paragraph, is_extra, head, tail, start, end)


def _boundary(tokens: Sequence[Token], before: int, after: int) -> int:
    """The first token after word `before` that belongs to word `after`.

    Punctuation written next to a word belongs to it, be it in its sentence or not (a closing
    quotation mark may open the next one); other punctuation belongs to the end of its sentence.
    """
    in_one_sentence = tokens[before].sentence == tokens[after].sentence
    for index in range(before + 1, after):
        token = tokens[index]
        if token.space_before and (in_one_sentence or token.sentence != tokens[before].sentence):
            return index
    return after


def speaking_rate(words: Sequence[Word]) -> float:
    """Median milliseconds per character of the fully timed words of three characters or more, or 0."""
    rates = [
        (word.heard_end - word.heard_start) / word.characters
        for word in words
        if word.is_timed and word.characters >= 3 and not word.is_extra
    ]
    return statistics.median(rates) if rates else 0.0


def forget_bad_times(
    words: Sequence[Word], rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> None:
    """Drop times that cannot be right: far too long or short, over a file's end, or out of order.

    `borders` are the ends of the audio files, ascending; nothing is spoken after the last.
    """
    last_start = last_end = 0
    for word in words:
        if word.heard_start is None:
            continue
        start, end = word.heard_start, word.heard_end
        expected = rate * word.characters
        longest = max(settings.longest_word * 1000, settings.longest_word_ratio * expected)
        shortest = settings.shortest_word_ratio * expected if word.characters >= 4 else 0
        if (
            (word.is_timed and not shortest <= end - start <= longest)
            or end <= start
            or bisect_right(borders, start) < bisect_left(borders, end)
            or start >= borders[-1]
            or start < max(last_start, last_end - LARGEST_OVERLAP)
            or end < last_end
        ):
            word.heard_start = word.heard_end = None
        else:
            last_start, last_end = start, end


def find_spans(
    words: Sequence[Word], rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> tuple[list[list[Word]], Counter[str]]:
    """Stretches without a hole, each from one measured word to another, and the holes by kind."""
    anchors = [place for place, word in enumerate(words) if word.is_anchor]
    heard_sentences = {words[place].sentence for place in anchors}
    lengths = Counter(word.sentence for word in words)
    lost_sentences = {number for number, length in lengths.items() if length >= 3 and number not in heard_sentences}
    spans = [[words[place]] for place in anchors[:1]]
    holes: Counter[str] = Counter()
    for first, last in pairwise(anchors):
        untimed = words[first + 1 : last]
        hole = _hole(words[first], untimed, words[last], rate, borders, lost_sentences, settings)
        if hole:
            holes[hole] += 1
            spans.append([words[last]])
        else:
            spans[-1] += [*untimed, words[last]]
    return spans, holes


def _hole(
    before: Word,
    untimed: Sequence[Word],
    after: Word,
    rate: float,
    borders: Sequence[float],
    lost_sentences: set[int],
    settings: SegmentationSettings,
) -> str | None:
    """Why the untimed words between two others cannot be accepted, or None.

    `file`: the end of an audio file lies between them; `sent`: a whole sentence lacks times (it may
    not have been read); `run`: too many words in a row do; `short`, `long`: the gap does not fit the
    words in it.
    """
    if bisect_left(borders, before.heard_end) < bisect_right(borders, after.heard_start):
        return "file"
    characters = before.tail + after.head
    for word in untimed:
        if word.sentence in lost_sentences:
            return "sent"
        characters += word.characters
    if len(untimed) > settings.longest_untimed_run:
        return "run"
    gap, expected = after.heard_start - before.heard_end, rate * characters
    if gap < settings.short_gap * expected - settings.short_gap_slack * 1000:
        return "short"
    in_sentence, between_sentences, between_paragraphs = settings.long_gap_slack
    if before.paragraph != after.paragraph:
        slack = between_paragraphs
    else:
        slack = in_sentence if before.sentence == after.sentence else between_sentences
    return "long" if gap > settings.long_gap * expected + slack * 1000 else None


def estimate_times(span: Sequence[Word], rate: float) -> None:
    """Set `start` and `end` of every word of a span.

    Untimed words inside a sentence share the gap by their characters. Where sentences meet they take
    the time they are expected to, and the rest of the gap becomes the pauses between the sentences.
    """
    for word in span:
        word.start, word.end = word.heard_start, word.heard_end
    anchors = [index for index, word in enumerate(span) if word.is_anchor]
    for first, last in pairwise(anchors):
        before, untimed, after = span[first], span[first + 1 : last], span[last]
        characters = before.tail + sum(word.characters for word in untimed) + after.head
        if characters == 0:
            continue
        gap = max(0, after.heard_start - before.heard_end)
        ends_sentence = [one.sentence != two.sentence for one, two in pairwise(span[first : last + 1])]
        scale = gap / characters
        if any(ends_sentence):
            scale = min(scale, rate)
        pause = (gap - scale * characters) / max(1, sum(ends_sentence))
        position = before.end = before.heard_end + scale * before.tail
        for word, is_new in zip(untimed, ends_sentence, strict=False):
            word.start = position + pause * is_new
            position = word.end = word.start + scale * word.characters
        after.start = after.heard_start - scale * after.head


def measured_range(span: Sequence[Word]) -> tuple[int, int]:
    """The part of a span whose first word begins and whose last word ends where it was measured: begin and end."""
    begin = next(
        (place for place, word in enumerate(span) if word.heard_start is not None and not word.head), len(span)
    )
    finish = len(span)
    while finish > begin and (span[finish - 1].heard_start is None or span[finish - 1].tail):
        finish -= 1
    return begin, finish
