"""M3AV (Chen et al. 2024): academic lectures, a test item a segment, with what YouTube says about the video.

`dataset_v1.0_noaudio/ID/speech/final+timestamps.json` lists segments with `timestr` ("0004240_0013260", milliseconds),
`final_spoken` and `final_written`; `dataset_v1.0_onlyaudio/ID.flac` is the audio; `set_split.json` maps ids to train,
dev and test (layout: Jack-ZC8/M3AV-dataset, its demo and its recipe for ESPnet, whose reference is `final_spoken`,
too).

The texts about the topic that helped speech models most (Interspeech 2026, 1041) are title, description and tags of the
video. They are no part of the data set; `info/ID.info.json` are such files as yt-dlp writes them:
`yt-dlp --skip-download --write-info-json -o 'info/ID' $(cat dataset_v1.0_noaudio/ID/raw/*.ytbUrl)`.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from cwjax.data.audio.decode import audio_duration
from cwjax.data.audio.spans import read_spans
from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, json_file, json_list, known
from cwjax.evaluation.suites.stored import Stored

Span = tuple[float, float]
"""Where a segment begins and ends, in seconds."""

VARIANTS = ("test", "dev")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the segments of a split's lectures."""
    splits = json_file(folder / "set_split.json")
    if not isinstance(splits, dict):
        raise CwjaxError(f"{folder / 'set_split.json'}: is no JSON object; fetch it again")
    for name in sorted(one for one, split in splits.items() if split == variant):
        try:
            yield from _lecture(folder, name)
        except CwjaxError as error:
            yield f"{error} (the lecture {name})"


def _lecture(folder: Path, name: str) -> list[Item | str]:
    path = folder / "dataset_v1.0_noaudio" / name / "speech" / "final+timestamps.json"
    audio = audio_file(str(path), folder / "dataset_v1.0_onlyaudio" / f"{name}.flac")
    about, length = _about(folder / "info" / f"{name}.info.json"), audio_duration(audio)
    found: list[Item | str] = []
    spans: list[Span] = []
    previous = ""
    for number, row in enumerate(json_list(path)):
        try:
            if isinstance(row, str):
                raise CwjaxError(row)
            span, spoken = _times(row, length), row.text("final_spoken")
        except CwjaxError as error:
            found.append(str(error))
            previous = ""
            continue
        item = Item(
            id=f"{name}_{number:04d}",
            audio=Stored(row.where, partial(_sound, audio, spans, len(spans))),
            reference=spoken,
            texts=about | known(previous=previous),
            fields={"recording": name, "subset": name.partition("-")[0], **known(topic=about.get("title", ""))},
        )
        spans.append(span)
        found.append(item)
        previous = row.text("final_written", spoken)
    return found


def _times(row: Placed, length: float) -> Span:
    start, _, end = row.text("timestr").partition("_")
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise CwjaxError(f"{row.where}: timestr is {row.values['timestr']!r}; expected START_END in milliseconds")
    if int(end) / 1000 > length:
        raise CwjaxError(f"{row.where}: ends at {int(end) / 1000:g} s of {length:g} s of audio")
    return int(start) / 1000, int(end) / 1000


def _sound(audio: Path, spans: list[Span], place: int) -> np.ndarray:
    return _sounds(audio, tuple(spans))[place]


@lru_cache(maxsize=1)
def _sounds(audio: Path, spans: tuple[Span, ...]) -> dict[int, np.ndarray]:
    """The segments of a lecture, (n,) int16 each; all, for compressed audio is decoded from its start."""
    return dict(read_spans(audio, spans))


def _about(path: Path) -> dict[str, str]:
    """Title, description as lead, and all with the tags as topic; empty if nobody fetched them."""
    if not path.is_file():
        return {}
    row = Placed(str(path), json_file(path))
    title, lead, tags = row.text("title", ""), row.text("description", ""), ", ".join(row.texts("tags"))
    return known(title=title, lead=lead, topic=" ".join(filter(None, (title, lead, tags))))
