"""The limits by which articles are cut into segments, and the choices of what is read."""

from dataclasses import dataclass

from cwjax.errors import CwjaxError


@dataclass(frozen=True)
class SegmentationSettings:
    """Limits of the segmentation; seconds where not said otherwise.

    The defaults were found on German articles. English ones are timed more sparsely: there
    `longest_untimed_run` and `min_coverage` may have to give way.

    Attributes:
        max_duration: of what is judged as one, padding included, and of a window, the model's.
        min_duration: from the first word to the last.
        pad: audio kept before the first and after the last word, at most half of the pause there.
        min_words: of a segment.
        longest_untimed_run: words in a row without a time.
        short_gap, short_gap_slack: a gap is too short below `short_gap * expected - slack`.
        long_gap, long_gap_slack: a gap is too long above `long_gap * expected + slack`, with a slack
            for gaps inside a sentence, between sentences, and between paragraphs or titles.
        cut_pause: pause at which a sentence that is too long may be cut.
        longest_word, longest_word_ratio: a word is timed wrongly if it is longer than both this and
            this multiple of the expected time ...
        shortest_word_ratio: ... or, with four characters or more, shorter than this part of it.
        min_coverage: share of the characters of a segment's words that are timed.
        min_characters_per_second, max_characters_per_second: of a segment's text.
        min_timed_ratio: share of an article's words that are timed.
        min_rate, max_rate: an article's milliseconds per character.
        previous_gap: longest pause to what counts as said directly before.
        previous_characters: of the text said before that are kept, the latest.
        language: of the subtitles to take where a recording has them in several; by code or English name.
        subset: of the corpus to read, where it has some (gigaspeech: XS, S, M, L or XL).
        keep_marks: keep names of speakers, sounds and dashes in subtitles.
    """

    max_duration: float = 30.0
    min_duration: float = 1.0
    pad: float = 0.2
    min_words: int = 2
    longest_untimed_run: int = 6
    short_gap: float = 0.4
    short_gap_slack: float = 0.1
    long_gap: float = 2.5
    long_gap_slack: tuple[float, float, float] = (1.5, 2.5, 3.0)
    cut_pause: float = 0.25
    longest_word: float = 1.5
    longest_word_ratio: float = 4.0
    shortest_word_ratio: float = 0.2
    min_coverage: float = 0.7
    min_characters_per_second: float = 6.0
    max_characters_per_second: float = 25.0
    min_timed_ratio: float = 0.5
    min_rate: float = 35.0
    max_rate: float = 110.0
    previous_gap: float = 5.0
    previous_characters: int = 1000
    language: str = ""
    subset: str = ""
    keep_marks: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0 or self.max_duration <= 2 * self.pad:
            raise CwjaxError(
                f"segmentation: pad ({self.pad} s) must not be negative and, twice, less than max_duration "
                f"({self.max_duration} s)"
            )
        if self.min_duration > self.max_duration - 2 * self.pad:
            raise CwjaxError(
                f"segmentation: min_duration ({self.min_duration} s) leaves nothing below max_duration "
                f"({self.max_duration} s) less the padding"
            )
