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
from dataclasses import replace
from pathlib import Path

from cwjax.data.audio_spans import read_spans
from cwjax.errors import CwjaxError
from cwjax.evaluation.items import Item
from cwjax.evaluation.suites.rows import Placed, audio_file, json_file, json_list, known

VARIANTS = ("test", "dev")


def read(folder: Path, variant: str) -> Iterator[Item | str]:
    """Yields the segments of a split's lectures; their audio is samples at 16 kHz, (n,) int16."""
    splits = json_file(folder / "set_split.json")
    if not isinstance(splits, dict):
        raise CwjaxError(f"{folder / 'set_split.json'}: is no JSON object; fetch it again")
    for name in sorted(one for one, split in splits.items() if split == variant):
        try:
            yield from _lecture(folder, name)
        except CwjaxError as error:
            yield f"{error} (the lecture {name})"


def _lecture(folder: Path, name: str) -> Iterator[Item | str]:
    path = folder / "dataset_v1.0_noaudio" / name / "speech" / "final+timestamps.json"
    audio = audio_file(str(path), folder / "dataset_v1.0_onlyaudio" / f"{name}.flac")
    about = _about(folder / "info" / f"{name}.info.json")
    spans: list[tuple[float, float]] = []
    segments: list[Item] = []
    previous = ""
    for number, row in enumerate(json_list(path)):
        try:
            if isinstance(row, str):
                raise CwjaxError(row)
            span, spoken = _times(row), row.text("final_spoken")
        except CwjaxError as error:
            yield str(error)
            previous = ""
            continue
        spans.append(span)
        texts = about | known(previous=previous)
        fields = {"recording": name, "subset": name.partition("-")[0], **known(topic=about.get("title", ""))}
        segments.append(Item(f"{name}_{number:04d}", None, spoken, texts=texts, fields=fields))
        previous = row.text("final_written", spoken)
    waiting = dict(enumerate(segments))
    try:
        for place, samples in read_spans(audio, spans):
            yield replace(waiting.pop(place), audio=samples)
    except CwjaxError as error:
        yield from (f"{one.id}: {error}" for one in waiting.values())


def _times(row: Placed) -> tuple[float, float]:
    start, _, end = row.text("timestr").partition("_")
    if not (start.isdecimal() and end.isdecimal() and int(start) < int(end)):
        raise CwjaxError(f"{row.where}: timestr is {row.values['timestr']!r}; expected START_END in milliseconds")
    return int(start) / 1000, int(end) / 1000


def _about(path: Path) -> dict[str, str]:
    """Title, description as lead, and all with the tags as topic; empty if nobody fetched them."""
    if not path.is_file():
        return {}
    row = Placed(str(path), json_file(path))
    title, lead, tags = row.text("title", ""), row.text("description", ""), ", ".join(row.texts("tags"))
    return known(title=title, lead=lead, topic=" ".join(filter(None, (title, lead, tags))))
