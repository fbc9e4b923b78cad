"""When the words of an article are spoken, as far as the alignment can be trusted.

About one word in ten of the Spoken Wikipedia has no time, mostly a function word between two timed
ones. Keeping only fully timed sentences would keep a tenth of the audio, so a run of untimed words
is accepted wherever the gap between its timed neighbours is about as long as saying it takes. What
cannot be accepted is a *hole*; between the holes lie the *spans*, in which every word gets a time.

All times are milliseconds on the article's timeline.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from cwjax.data.corpora.segmentation_settings import SegmentationSettings
from cwjax.data.corpora.swc.text import Tokens, is_spoken

LARGEST_OVERLAP = 100  # by which a word may begin before the last one ended; at most 90 in the corpus

Span = tuple[int, int]
"""The first word and the one after the last."""


@dataclass(slots=True)
class Words:
    """Tokens that are spoken, in order; every attribute is an array with one entry a word.

    Attributes:
        token: number of the word's token.
        begin, finish: range of tokens, the word with the punctuation that belongs to it.
        characters: of all its spoken forms.
        sentence, paragraph: as in `Token`.
        is_extra: part of a guessed announcement.
        head, tail: characters of untimed forms before the first and after the last timed one
            ("1938" may lack the time of its "eight").
        heard_start, heard_end: of the timed forms; NaN if there are none or they are not trusted.
        start, end: of the whole word; an estimate where it was not measured, NaN outside spans.
    """

    token: np.ndarray
    begin: np.ndarray
    finish: np.ndarray
    characters: np.ndarray
    sentence: np.ndarray
    paragraph: np.ndarray
    is_extra: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    heard_start: np.ndarray
    heard_end: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.token)

    def take(self, which: np.ndarray) -> "Words":
        """The words for which `which` is true."""
        return Words(*(getattr(self, column.name)[which] for column in fields(self)))

    @property
    def is_heard(self) -> np.ndarray:
        """A part was measured."""
        return ~np.isnan(self.heard_start)

    @property
    def is_timed(self) -> np.ndarray:
        """Start and end were measured."""
        return self.is_heard & (self.head == 0) & (self.tail == 0)

    @property
    def is_anchor(self) -> np.ndarray:
        """Start or end was measured."""
        return self.is_heard & ((self.head == 0) | (self.tail == 0))


def read_words(tokens: Tokens) -> Words:
    """The spoken tokens in order, extras among them."""
    # A norm is (token, pronunciation, start, end); most are letters only, which is quickly seen.
    spoken = [norm for norm in tokens.norms if norm[1].isalnum() or is_spoken(norm[1])]
    lengths = np.array([len(norm[1]) for norm in spoken], int)
    starts = np.array([norm[2] for norm in spoken], float)
    ends = np.array([norm[3] for norm in spoken], float)
    token, first = np.unique(np.array([norm[0] for norm in spoken], int), return_index=True)
    sentence = np.array([place.sentence for place in tokens.places], int)
    paragraph = np.array([place.paragraph for place in tokens.places], int)
    is_extra = np.array([place.kind == "extra" for place in tokens.places], bool)
    begin, finish = _with_punctuation(token, sentence, np.array(tokens.spaces, bool))
    timed = ~np.isnan(starts)
    word = np.repeat(np.arange(len(token)), np.diff(first, append=len(lengths)))
    timed_so_far = np.cumsum(timed) - (np.cumsum(timed) - timed)[first][word]
    timed_in_all = np.add.reduceat(timed, first, dtype=int)

    def summed(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.where(where, values, 0), first)

    def heard(times: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.where(timed_in_all > 0, summed(times, timed & where), np.nan)

    unknown = np.full(len(token), np.nan)
    return Words(
        token=token,
        begin=begin,
        finish=finish,
        characters=np.add.reduceat(lengths, first),
        sentence=sentence[token],
        paragraph=paragraph[token],
        is_extra=is_extra[token],
        head=summed(lengths, timed_so_far == 0),
        tail=summed(lengths, ~timed & (timed_so_far > 0) & (timed_so_far == timed_in_all[word])),
        heard_start=heard(starts, timed_so_far == 1),
        heard_end=heard(ends, timed_so_far == timed_in_all[word]),
        start=unknown,
        end=unknown.copy(),
    )


def _with_punctuation(token: np.ndarray, sentence: np.ndarray, space: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The range of tokens of each word: begin and finish.

    Punctuation written next to a word belongs to it, be it in its sentence or not (a closing
    quotation mark may open the next one); other punctuation belongs to the end of its sentence.
    """
    begin = token.copy()
    marks = np.setdiff1d(np.arange(len(sentence)), token, assume_unique=True)
    after = np.searchsorted(token, marks)
    between = (after > 0) & (after < len(token))
    marks, after = marks[between], after[between]
    before = token[after - 1]
    in_one_sentence = sentence[before] == sentence[token[after]]
    opens = space[marks] & (in_one_sentence | (sentence[marks] != sentence[before]))
    np.minimum.at(begin, after[opens], marks[opens])
    begin[:1] = 0
    return begin, np.append(begin, len(sentence))[1:]


def speaking_rate(words: Words) -> float:
    """Median milliseconds per character of the fully timed words of three characters or more, or 0."""
    usual = words.is_timed & (words.characters >= 3) & ~words.is_extra
    rates = (words.heard_end - words.heard_start)[usual] / words.characters[usual]
    return float(np.median(rates)) if len(rates) else 0.0


def forget_bad_times(words: Words, rate: float, borders: Sequence[float], settings: SegmentationSettings) -> None:
    """Drop times that cannot be right: far too long or short, over a file's end, or out of order.

    `borders` are the ends of the audio files, ascending; nothing is spoken after the last.
    """
    start, end = words.heard_start, words.heard_end
    expected = rate * words.characters
    longest = np.maximum(settings.longest_word * 1000, settings.longest_word_ratio * expected)
    shortest = np.where(words.characters >= 4, settings.shortest_word_ratio * expected, 0)
    bad = words.is_timed & ~((shortest <= end - start) & (end - start <= longest))
    bad |= (end <= start) | (start >= borders[-1])
    bad |= np.searchsorted(borders, start, "right") < np.searchsorted(borders, end, "left")
    last_start = last_end = 0.0
    plausible = np.flatnonzero(words.is_heard & ~bad)
    for place, one_start, one_end in zip(plausible, start[plausible].tolist(), end[plausible].tolist(), strict=True):
        if one_start < last_start or one_start < last_end - LARGEST_OVERLAP or one_end < last_end:
            bad[place] = True
        else:
            last_start, last_end = one_start, one_end
    start[bad] = end[bad] = np.nan


def find_spans(
    words: Words, rate: float, borders: Sequence[float], settings: SegmentationSettings
) -> tuple[list[Span], Counter[str]]:
    """Stretches without a hole, each from one measured word to another, and the holes by kind.

    What makes a hole of the untimed words between two others: `file`: the end of an audio file lies between them;
    `sent`: a whole sentence lacks times (it may not have been read); `run`: too many words in a row do; `short`,
    `long`: the gap does not fit the words in it.
    """
    anchors = np.flatnonzero(words.is_anchor)
    if not len(anchors):
        return [], Counter()
    before, after = anchors[:-1], anchors[1:]
    lengths = np.bincount(words.sentence)
    is_lost = (lengths >= 3) & (np.bincount(words.sentence[anchors], minlength=len(lengths)) == 0)
    lost_before = np.cumsum(is_lost[words.sentence])
    gap = words.heard_start[after] - words.heard_end[before]
    expected = rate * _untimed_characters(words, before, after)
    in_sentence, between_sentences, between_paragraphs = settings.long_gap_slack
    slack = np.where(
        words.paragraph[before] != words.paragraph[after],
        between_paragraphs,
        np.where(words.sentence[before] == words.sentence[after], in_sentence, between_sentences),
    )
    file_of_end = np.searchsorted(borders, words.heard_end[before], "left")
    reasons = {
        "file": file_of_end < np.searchsorted(borders, words.heard_start[after], "right"),
        "sent": lost_before[after] > lost_before[before],
        "run": after - before - 1 > settings.longest_untimed_run,
        "short": gap < settings.short_gap * expected - settings.short_gap_slack * 1000,
        "long": gap > settings.long_gap * expected + slack * 1000,
    }
    hole = np.select(list(reasons.values()), range(1, len(reasons) + 1))
    kinds = list(reasons)
    holes = Counter(kinds[number - 1] for number in hole[hole > 0].tolist())
    begins = [anchors[0], *after[hole > 0]]
    ends = [*before[hole > 0], anchors[-1]]
    return [(int(begin), int(end) + 1) for begin, end in zip(begins, ends, strict=True)], holes


def _untimed_characters(words: Words, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How many characters without a time lie between the measured ends of words `before` and `after`."""
    up_to = np.cumsum(words.characters)
    return words.tail[before] + up_to[after - 1] - up_to[before] + words.head[after]


def estimate_times(words: Words, spans: Sequence[Span], rate: float) -> None:
    """Set `start` and `end` of every word of the spans.

    Untimed words inside a sentence share the gap by their characters. Where sentences meet they take
    the time they are expected to, and the rest of the gap becomes the pauses between the sentences.
    """
    in_span = np.zeros(len(words), bool)
    for begin, end in spans:
        in_span[begin:end] = True
    words.start[in_span], words.end[in_span] = words.heard_start[in_span], words.heard_end[in_span]
    anchors = np.flatnonzero(words.is_anchor)
    before, after = anchors[:-1], anchors[1:]
    characters = _untimed_characters(words, before, after)
    first_in_span = np.isin(after, [begin for begin, _ in spans])
    chosen = (characters > 0) & ~first_in_span
    before, after, characters = before[chosen], after[chosen], characters[chosen]

    sentences_before = np.cumsum(np.diff(words.sentence, prepend=words.sentence[:1]) != 0)
    new_sentences = sentences_before[after] - sentences_before[before]
    gap = np.maximum(0, words.heard_start[after] - words.heard_end[before])
    scale = gap / characters
    scale = np.where(new_sentences > 0, np.minimum(scale, rate), scale)
    pause = (gap - scale * characters) / np.maximum(1, new_sentences)
    words.end[before] = words.heard_end[before] + scale * words.tail[before]
    words.start[after] = words.heard_start[after] - scale * words.head[after]

    # Each untimed word, and between which two anchors it is.
    counts = after - before - 1
    pair = np.repeat(np.arange(len(before)), counts)
    untimed = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts) + before[pair] + 1
    up_to = np.cumsum(words.characters)
    said = up_to[untimed] - up_to[before[pair]]
    paused = pause[pair] * (sentences_before[untimed] - sentences_before[before[pair]])
    words.end[untimed] = words.end[before[pair]] + scale[pair] * said + paused
    words.start[untimed] = words.end[untimed] - scale[pair] * words.characters[untimed]


def measured_range(words: Words, span: Span) -> Span:
    """The part of a span whose first word begins and whose last word ends where it was measured."""
    first, last = span
    is_heard = words.is_heard[first:last]
    begins = np.flatnonzero(is_heard & (words.head[first:last] == 0))
    ends = np.flatnonzero(is_heard & (words.tail[first:last] == 0))
    begin = first + int(begins[0]) if len(begins) else last
    return begin, max(begin, first + int(ends[-1]) + 1 if len(ends) else first)
