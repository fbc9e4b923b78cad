"""Decoding audio, and that segments cut the sound that belongs to their words."""

import io
import json
import os
import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from segmented import segmented

from cwjax.data.audio.decode import BLOCK_FRAMES, audio_duration, channels_of, read_audio
from cwjax.data.audio.spans import read_spans
from cwjax.data.corpora.swc.article import read_article, with_durations
from cwjax.data.corpora.swc.segmentation import SegmentationSettings
from cwjax.errors import CwjaxError

RATE = 16_000


def tone(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def loudest_frequency(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_formats_and_rates_give_the_same_sound(tmp_path, suffix, rate):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(440, 1.0, rate), rate)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(RATE, abs=1)
    assert loudest_frequency(samples) == pytest.approx(440, abs=2)
    middle = samples[RATE // 4 : 3 * RATE // 4]
    expected = tone(440, 1.0, RATE)[RATE // 4 : 3 * RATE // 4]
    assert np.abs(middle - expected).max() < (0.05 if suffix == "ogg" else 0.002)
    assert audio_duration(path) == pytest.approx(1.0, abs=1e-3)


def test_channels_are_averaged(tmp_path):
    left, right = tone(300, 0.5, RATE), tone(1000, 0.5, RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, -left], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), (2 * left + right) / 3, atol=1e-6)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    as_written = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), as_written.mean(axis=1))


def test_long_files_are_read_whole_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("cwjax.data.audio.decode.BLOCK_FRAMES", 1000)
    signal = np.random.default_rng(0).uniform(-1, 1, 4321).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), signal)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_resampling_in_blocks_leaves_no_seams(tmp_path, monkeypatch, rate):
    monkeypatch.setattr("cwjax.data.audio.decode.BLOCK_FRAMES", 7001)
    signal = np.random.default_rng(0).uniform(-1, 1, (rate + 1, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, rate, subtype="FLOAT")
    whole = soxr.resample(signal.mean(axis=1), rate, RATE, quality="HQ")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), whole, atol=1e-6)


def test_memory_is_that_of_the_result(tmp_path, monkeypatch):
    monkeypatch.setattr("cwjax.data.audio.decode.BLOCK_FRAMES", 1 << 14)
    soundfile.write(tmp_path / "a.flac", np.zeros((44_100 * 60, 2), np.int16), 44_100)
    tracemalloc.start()
    samples = read_audio(tmp_path / "a.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples.nbytes == 60 * RATE * 4
    assert peak < 1.3 * samples.nbytes


def test_short_and_silent_files_are_audio(tmp_path):
    soundfile.write(tmp_path / "short.wav", tone(440, 0.01, RATE), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros((8_000, 2)), 8_000)
    assert len(read_audio(tmp_path / "short.wav")) == 160
    silence = read_audio(tmp_path / "silent.wav")
    assert len(silence) == RATE
    assert not silence.any()


def test_other_sampling_rates_can_be_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 1.0, RATE), RATE)
    samples = read_audio(tmp_path / "a.wav", sampling_rate=8000)
    assert len(samples) == 8000
    assert loudest_frequency(samples, 8000) == pytest.approx(440, abs=2)


def test_frequencies_above_the_new_limit_do_not_fold_back(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(12_000, 1.0, 48_000), 48_000)
    assert np.abs(read_audio(tmp_path / "a.wav")[1000:-1000]).max() < 1e-3


def write_broken(path: Path, kind: str) -> None:
    if kind == "garbage":
        path.write_bytes(b"this is no audio at all" * 100)
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "not finite":
        samples = np.zeros(10_000, np.float32)
        samples[6000] = np.nan
        soundfile.write(path, samples, 1000, subtype="FLOAT")
    elif kind == "headerless":
        path.write_bytes(bytes(1000))


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("missing", "a.ogg", "no such audio file"),
        ("garbage", "a.ogg", "cannot be read as audio"),
        ("nothing", "a.ogg", "cannot be read as audio"),
        ("no samples", "a.wav", "holds no audio"),
        ("not finite", "a.wav", r"not finite numbers, the first at 6\.00 s"),
        ("headerless", "a.raw", "cannot be read as audio"),
    ],
)
def test_unusable_files_are_named_with_the_reason(tmp_path, kind, name, reason):
    path = tmp_path / name
    write_broken(path, kind)
    with pytest.raises(CwjaxError, match=reason) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind != "not finite":
        with pytest.raises(CwjaxError, match=reason):
            audio_duration(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 10, RATE), RATE)
    read = soundfile.SoundFile.read

    def read_then_cut(file: soundfile.SoundFile, *arguments, **options) -> np.ndarray:
        block = read(file, *arguments, **options)
        os.truncate(path, RATE * 2 * 4)
        return block

    monkeypatch.setattr("cwjax.data.audio.decode.BLOCK_FRAMES", 1000)
    monkeypatch.setattr(soundfile.SoundFile, "read", read_then_cut)
    with pytest.raises(CwjaxError, match=r"a\.wav: ends after 4\.[01] s, but its header says 10\.0 s"):
        read_audio(path)


def write_film(path: Path, container: str, codec: str, pictures: bool, seconds: float = 2) -> None:
    """A stereo tone in a container, with or without pictures."""
    with av.open(path, "w", format=container) as film:
        sound = film.add_stream(codec, rate=48_000, layout="stereo")
        video = film.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p") if pictures else None
        for number in range(round(5 * seconds) if video else 0):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number * 20, np.uint8), "rgb24")
            film.mux(video.encode(picture.reformat(format="yuv420p")))
        samples = np.stack([tone(440, seconds, 48_000)] * 2).astype(np.float32)
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
        frame.sample_rate = 48_000
        fifo.write(frame)
        while (part := fifo.read(sound.frame_size or 1024, partial=True)) is not None:
            film.mux(sound.encode(part))
        for stream in film.streams:
            film.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("talk.m4a", "ipod", "aac"),
        ("video.mp4", "mp4", "aac"),
        ("-film: the bees.mkv", "matroska", "aac"),
        ("a.aac", "adts", "aac"),
    ],
)
def test_ffmpeg_reads_the_rest(tmp_path, name, container, codec):
    write_film(tmp_path / name, container, codec, pictures=container in ("mp4", "matroska"))
    samples = read_audio(tmp_path / name)
    assert len(samples) == pytest.approx(2 * RATE, abs=0.1 * RATE)
    assert loudest_frequency(samples) == pytest.approx(440, abs=2)
    np.testing.assert_allclose(np.abs(samples[RATE // 2 : RATE]).max(), 0.5, atol=0.05)
    assert audio_duration(tmp_path / name) == pytest.approx(len(samples) / RATE, abs=1e-3)
    assert channels_of(tmp_path / name) == 2


def test_a_film_that_was_cut(tmp_path):
    write_film(tmp_path / "a.mp4", "mp4", "aac", pictures=False, seconds=20)
    with (
        av.open(tmp_path / "a.mp4") as film,
        av.open(tmp_path / "b.mp4", "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(film.streams.audio[0])
        for packet in film.demux(film.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert len(read_audio(tmp_path / "b.mp4")) == pytest.approx(20 * RATE, abs=0.1 * RATE)
    os.truncate(tmp_path / "b.mp4", os.path.getsize(tmp_path / "b.mp4") // 2)
    with pytest.raises(CwjaxError, match=r"b\.mp4: ends after .* s, but its header says 20\.0 s"):
        read_audio(tmp_path / "b.mp4")


def encoded(seconds: float, suffix: str, rate: int = RATE, frequency: float = 440, **options) -> bytes:
    """A file of a tone."""
    file = io.BytesIO()
    kinds = {
        "opus": ("OGG", "OPUS"),
        "gsm": ("WAV", "GSM610"),
        "adpcm": ("WAV", "IMA_ADPCM"),
        "sph": ("NIST", "PCM_16"),
    }
    kind, subtype = kinds.get(suffix, (suffix, None))
    soundfile.write(file, tone(frequency, seconds, rate), rate, format=kind, subtype=subtype, **options)
    return file.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """An MP3 without its first frame, which says how many follow."""
    return mp3[mp3.index(b"\xff\xfb", max(mp3.find(b"Xing"), mp3.find(b"Info"))) :]


@pytest.mark.parametrize(
    "suffix", ["wav", "adpcm", "gsm", "aiff", "au", "w64", "rf64", "caf", "voc", "sph", "svx", "flac", "mp3"]
)
def test_a_file_cut_short_is_no_whole_one(tmp_path, suffix):
    content, path = encoded(15, suffix), tmp_path / "a.wav"
    path.write_bytes(content)
    assert len(read_audio(path)) == pytest.approx(15 * RATE, abs=0.01 * RATE)
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(CwjaxError, match=r"a\.wav: ends after [345]\.\d s, but its header says 15\.\d s"):
        read_audio(path)
    with pytest.raises(CwjaxError, match=r"a\.wav: ends after [345]\.\d s, but its header says 15\.\d s"):
        audio_duration(path)


def without_length(flac: bytes) -> bytes:
    """A FLAC as written to a pipe."""
    head = bytearray(flac)
    head[18:26] = (int.from_bytes(head[18:26], "big") >> 36 << 36).to_bytes(8, "big")
    return bytes(head)


def with_size(wav: bytes, size: int) -> bytes:
    """A WAV as written to a pipe."""
    at = wav.index(b"data") + 4
    return wav[:4] + struct.pack("<I", size) + wav[8:at] + struct.pack("<I", size) + wav[at + 4 :]


def mp3_in_wav(mp3: bytes) -> bytes:
    layout = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(mp3)) + mp3
    return b"RIFF" + struct.pack("<I", len(body)) + body


ID3 = b"ID3\4\0\0\0\0\x10\0" + bytes(2048)


def vbr_mp3() -> bytes:
    """An MP3 whose first frames are large, without a header: its length looks shorter than it is."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 4 * 44_100)
    file = io.BytesIO()
    samples = np.concatenate([noise, tone(440, 8, 44_100)])
    soundfile.write(file, samples, 44_100, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    return without_xing(file.getvalue())


UNRELIABLE = {
    "two MP3s": (lambda: encoded(5, "mp3") + encoded(7, "mp3"), 12),
    "two Oggs": (lambda: encoded(5, "ogg") + encoded(7, "ogg"), 12),
    "two Opus": (lambda: encoded(5, "opus") + encoded(7, "opus"), 12),
    "two FLACs": (lambda: encoded(5, "flac") + encoded(7, "flac"), 12),
    "VBR MP3 without Xing": (vbr_mp3, 12),
    "MP3 with zeros behind": (lambda: without_xing(encoded(5, "mp3", 44_100)) + bytes(200_000), 5),
    "MP3 with a cover": (lambda: ID3[:6] + b"\0\2\0\0" + b"\5" * 32_768 + without_xing(encoded(5, "mp3", 44_100)), 5),
    "MP3 with an APE tag": (lambda: without_xing(encoded(5, "mp3", 44_100)) + b"APETAGEX" + bytes(100_000), 5),
    "two ID3 tags": (lambda: ID3 + ID3 + encoded(5, "mp3"), 5),
    "junk before an MP3": (lambda: bytes(range(7, 200)) * 20 + encoded(5, "mp3"), 5),
    "MP3 in a WAV": (lambda: mp3_in_wav(without_xing(encoded(5, "mp3", 44_100))), 5),
    "FLAC of a pipe": (lambda: without_length(encoded(5, "flac")), 5),
    "WAV of size 0": (lambda: with_size(encoded(5, "wav"), 0), 5),
    "WAV of a pipe": (lambda: with_size(encoded(5, "wav"), 0xFFFFFFFF), 5),
    "WAV of SoX's pipe": (lambda: with_size(encoded(5, "wav"), 0x7FFFF000), 5),
}


@pytest.mark.parametrize("kind", UNRELIABLE)
def test_files_are_read_to_their_end_whatever_their_headers_say(tmp_path, kind):
    make, seconds = UNRELIABLE[kind]
    path = tmp_path / "a.mp3"
    path.write_bytes(make())
    samples = read_audio(path)
    assert len(samples) == pytest.approx(seconds * RATE, abs=0.2 * RATE)
    assert audio_duration(path) == pytest.approx(len(samples) / RATE, abs=0.01)
    assert loudest_frequency(samples[-2 * RATE : -RATE // 2]) == pytest.approx(440, abs=2)
    ((_, stretch),) = read_spans(path, [(seconds - 1.5, seconds - 0.5)])
    assert loudest_frequency(stretch) == pytest.approx(440, abs=2)


def test_joined_oggs_of_two_rates_are_no_single_one(tmp_path):
    (tmp_path / "a.ogg").write_bytes(encoded(5, "ogg") + encoded(7, "ogg", 44_100))
    with pytest.raises(CwjaxError, match=r"a\.ogg: cannot be read as audio"):
        read_audio(tmp_path / "a.ogg")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "a text",
    ],
)
def test_no_file_opens_another(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(encoded(3, "wav"))
    Path("a.wav").write_text(text.format(secret=tmp_path / "secret.wav"))
    for path in ("a.wav", tmp_path / "a.wav"):
        with pytest.raises(CwjaxError, match=r"a\.wav: cannot be read as audio \(") as caught:
            read_audio(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [2, 999, 2_000_000])
def test_absurd_sampling_rates_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), rate)
    for read in (read_audio, audio_duration):
        with pytest.raises(CwjaxError, match=rf"a\.wav: says that its sampling rate is {rate} Hz"):
            read(tmp_path / "a.wav")


def test_many_channels_are_read_in_small_blocks(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((400_000, 64), np.int16), 96_000)
    tracemalloc.start()
    samples = read_audio(tmp_path / "a.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == pytest.approx(400_000 / 6, abs=1)
    assert peak < 32 * BLOCK_FRAMES  # a third of all samples


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_opposite_channels_do_not_cancel(tmp_path, caplog, noise):
    random = np.random.default_rng(0)
    speech = tone(440, 3, RATE)
    both = np.stack([speech, -speech], axis=1) + noise * random.normal(size=(3 * RATE, 2))
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav")
    assert np.abs(samples - speech).max() < 0.01 + 5 * noise
    assert "a.wav: has channels of opposite polarity" in caplog.text
    assert len(caplog.records) == 1


def test_speech_in_one_of_six_channels_stays(tmp_path):
    speech = tone(440, 3, RATE)
    soundfile.write(
        tmp_path / "a.wav", np.stack([np.zeros(len(speech))] * 2 + [speech] + [np.zeros(len(speech))] * 3, axis=1), RATE
    )
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), speech / 6, atol=1e-4)
    assert channels_of(tmp_path / "a.wav") == 6
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", channel=2), speech, atol=1e-4)
    with pytest.raises(CwjaxError, match=r"a\.wav: has 6 channels, so there is no channel 7"):
        read_audio(tmp_path / "a.wav", channel=6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "suffix", ["wav", "aiff", "au", "w64", "rf64", "caf", "voc", "sph", "flac", "mp3", "ogg", "opus"]
)
def test_damaged_files_end_in_one_line(tmp_path, suffix):
    random = np.random.default_rng(0)
    content, path = encoded(0.5, suffix), tmp_path / "a.bin"
    for _ in range(30):
        damaged = bytearray(content[: random.integers(10, len(content))] if random.random() < 0.3 else content)
        for at in random.integers(0, min(len(damaged), random.choice([50, 500])), random.integers(1, 6)):
            damaged[at] = random.choice([0, 255, random.integers(256)])
        path.write_bytes(damaged)
        for read in (read_audio, audio_duration, channels_of):
            said = ""
            try:
                read(path)
            except CwjaxError as error:
                said = str(error)
            assert not said or (str(path) in said and "\n" not in said)


def test_names_that_are_not_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    Path(path).write_bytes(encoded(1, "wav"))
    assert len(read_audio(path)) == RATE


WORDS = [  # start (ms), end (ms), pitch (Hz); a pause parts the sentences
    [(500, 1000, 400), (1050, 1550, 500), (1600, 2100, 600)],
    [(2900, 3400, 700), (3450, 3950, 800), (4000, 4500, 900)],
    [(6500, 7000, 1000), (7050, 7550, 1100), (7600, 8100, 1200)],
]
SECOND_FILE = 5.25


def write_tones(folder: Path) -> None:
    """An article whose words are tones, over two files of different rates and channels."""
    folder.mkdir()
    sentences = []
    whole = {rate: np.zeros(round(9 * rate)) for rate in (44_100, 22_050)}
    for words in WORDS:
        tokens = []
        for start, end, pitch in words:
            tokens.append(f'<t>tone{pitch}<n pronunciation="tone{pitch}" start="{start}" end="{end}"/></t>')
            for rate, signal in whole.items():
                first = round(start * rate / 1000)
                piece = tone(pitch, (end - start) / 1000, rate)
                signal[first : first + len(piece)] = piece
        sentences.append(f"<s>{' '.join(tokens)}<t>.</t></s>")
    document = f"<article><meta/><d><p>{' '.join(sentences)}</p></d></article>"
    (folder / "aligned.swc").write_text(document)
    (folder / "info.json").write_text(json.dumps({"audio_files": [{"offset": 0.0}, {}]}))
    first = whole[44_100][: round(SECOND_FILE * 44_100)]
    soundfile.write(folder / "audio1.ogg", np.stack([first, first], axis=1), 44_100)
    soundfile.write(folder / "audio2.ogg", whole[22_050][round(SECOND_FILE * 22_050) :], 22_050)


def test_segments_hold_the_sound_of_their_words(tmp_path):
    write_tones(tmp_path / "tones")
    article = read_article(tmp_path / "tones", tmp_path)
    article = with_durations(article, [audio_duration(tmp_path / part.path) for part in article.audio_parts])
    assert article.audio_parts[1].offset == pytest.approx(SECOND_FILE, abs=1e-3)
    found = segmented(article, SegmentationSettings(max_duration=2.5))
    segments, audio = found.segments, [found.tracks[one.recording].audio for one in found.segments]
    assert audio == ["tones/audio1.ogg", "tones/audio1.ogg", "tones/audio2.ogg"]
    for one, path, words in zip(segments, audio, WORDS, strict=True):
        samples = read_audio(tmp_path / path)
        offset = next(part.offset for part in article.audio_parts if part.path == path)
        begin = round((one.start - offset) * RATE)
        clip = samples[begin : begin + round(one.duration * RATE)]
        assert len(clip) == round(one.duration * RATE)
        first_word = round(one.utterances[0].start * RATE)
        for start, end, pitch in words:
            position = first_word + round((start - words[0][0]) * RATE / 1000)
            burst = clip[position : position + round((end - start) * RATE / 1000)]
            assert loudest_frequency(burst) == pytest.approx(pitch, abs=5)
        assert np.abs(clip[: first_word - 200]).max() < 0.05, "silence before the first word"
        assert np.abs(clip[round(one.utterances[-1].end * RATE) + 200 :]).max() < 0.05
