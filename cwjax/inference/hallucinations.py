"""Words that were never said: what Whisper may invent in silence, found by the times of words.

The rules are openai-whisper's (openai/whisper, transcribe.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cwjax.inference.options import APPENDED, PREPENDED
from cwjax.inference.recording import frames_of
from cwjax.inference.segments import Draft
from cwjax.inference.transcript import Word

PUNCTUATION = PREPENDED + APPENDED
LOOKED_AT = 8
"""Words of a segment that are judged."""


@dataclass(frozen=True)
class Surroundings:
    """Where a window stands.

    Attributes:
        seek: mel frame where it begins.
        began, ended: seconds where it begins, and where a full window would end.
        heard: seconds of it that were heard.
        last_speech: seconds where the last word before it ended.
        frames: mel frames of the recording.
        duration: seconds of the recording.
    """

    seek: int
    began: float
    ended: float
    heard: float
    last_speech: float
    frames: int
    duration: float


def is_anomalous(draft: Draft | None) -> bool:
    """Whether most of a segment's first words are improbable, hurried or drawn out."""
    if draft is None or not draft.words:
        return False
    words = [word for word in draft.words if word.text not in PUNCTUATION][:LOOKED_AT]
    score = sum(_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _anomaly(word: Word) -> float:
    duration = word.end - word.start
    return (word.probability < 0.15) + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2)


def skip_hallucinations(
    drafts: list[Draft], seek: int, threshold: float, here: Surroundings
) -> tuple[list[Draft], int] | int:
    """Drops segments that look invented and have silence around them.

    Args:
        drafts: the window's segments, with words.
        seek: mel frame where the next window is to begin.
        threshold: seconds of silence that make a suspicion count.
        here: the window.

    Returns:
        The segments to keep and where the next window begins; or, if the window begins with silence before such a
        segment, only the mel frame where to hear it again.
    """
    first = next((draft for draft in drafts if draft.words), None)
    if first is not None and is_anomalous(first):
        gap = first.start - here.began
        if gap > threshold:
            return here.seek + frames_of(gap)
    last_end = here.last_speech
    for place, draft in enumerate(drafts):
        if not draft.words:
            continue
        if is_anomalous(draft):
            following = next((later for later in drafts[place + 1 :] if later.words), None)
            if _silent_before(draft, last_end, threshold, here) and _silent_after(draft, following, threshold, here):
                seek = frames_of(max(here.began + 1, draft.start))
                if here.duration - draft.end < threshold:
                    seek = here.frames
                return drafts[:place], seek
        last_end = draft.end
    return drafts, seek


def _silent_before(draft: Draft, last_end: float, threshold: float, here: Surroundings) -> bool:
    return draft.start - last_end > threshold or draft.start < threshold or draft.start - here.began < 2


def _silent_after(draft: Draft, following: Draft | None, threshold: float, here: Surroundings) -> bool:
    next_start = following.words[0].start if following and following.words else here.began + here.heard
    return next_start - draft.end > threshold or is_anomalous(following) or here.ended - draft.end < 2


def last_word_end(drafts: Sequence[Draft]) -> float | None:
    """Where the last word ends; without words, the last segment; without segments, None."""
    for draft in reversed(drafts):
        if draft.words:
            return draft.words[-1].end
    return drafts[-1].end if drafts else None
