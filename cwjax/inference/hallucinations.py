"""Words that were never said, which Whisper may invent in silence; the rules are openai-whisper's (transcribe.py)."""

from dataclasses import dataclass

from cwjax.inference.audio import frames_of
from cwjax.inference.options import APPENDED, PREPENDED
from cwjax.inference.transcript import Segment, Word

JUDGED_WORDS = 8
"""Words of a segment that say whether it is invented."""


@dataclass(frozen=True)
class Surroundings:
    """Where a window stands.

    Attributes:
        seek: mel frame where it begins.
        began, ended: seconds where it begins, and where a full window would end.
        length: seconds of it that were encoded.
        last_speech: seconds where the last word before it ended.
        frames: mel frames of the recording.
        duration: seconds of the recording.
    """

    seek: int
    began: float
    ended: float
    length: float
    last_speech: float
    frames: int
    duration: float


def is_anomalous(segment: Segment | None) -> bool:
    """Whether most of a segment's first words are improbable, hurried or drawn out."""
    if segment is None or not segment.words:
        return False
    words = [word for word in segment.words if word.text not in PREPENDED + APPENDED][:JUDGED_WORDS]
    score = sum(_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: Word) -> float:
    duration = word.end - word.start
    return (word.probability < 0.15) + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2)


def skip_hallucinations(
    segments: list[Segment], seek: int, threshold: float, here: Surroundings
) -> tuple[list[Segment], int] | int:
    """Drops segments that look invented and have silence around them.

    Args:
        segments: of the window, with words.
        seek: mel frame where the next window is to begin.
        threshold: seconds of silence that make a suspicion count.
        here: the window.

    Returns:
        The segments to keep and where the next window begins; or, if the window begins with silence before such a
        segment, only the mel frame where it is to begin instead.
    """
    spoken = [(place, segment) for place, segment in enumerate(segments) if segment.words]
    if spoken and is_anomalous(spoken[0][1]) and (gap := spoken[0][1].start - here.began) > threshold:
        return here.seek + frames_of(gap)
    last_end = here.last_speech
    for (place, segment), (_, following) in zip(spoken, [*spoken[1:], (None, None)], strict=False):
        if is_anomalous(segment):
            before, start = segment.start - last_end, segment.start
            next_start = following.words[0].start if following else here.began + here.length
            is_silent_before = before > threshold or start < threshold or start - here.began < 2
            is_silent_after = next_start - segment.end > threshold or here.ended - segment.end < 2
            if is_silent_before and (is_silent_after or is_anomalous(following)):
                ends_here = here.duration - segment.end < threshold
                return segments[:place], here.frames if ends_here else frames_of(max(here.began + 1, start))
        last_end = segment.end
    return segments, seek
