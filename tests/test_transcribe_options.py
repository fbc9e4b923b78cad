"""The command line of `cwjax transcribe`: openai-whisper's spellings, meanings and defaults, and quick help."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from cwjax.commands.transcribe_options import decoding_options, parse_options, subtitle_layout
from cwjax.errors import CwjaxError
from cwjax.inference.options import DecodingOptions
from cwjax.inference.writers import OPENAI_FORMATS, SubtitleLayout


def decoded(*arguments: str) -> DecodingOptions:
    return decoding_options(parse_options(["--model", "m", "a.ogg", *arguments]))


def test_defaults_are_those_of_openai_whispers_command():
    temperatures = tuple(np.arange(0, 1.0 + 1e-6, 0.2))
    assert decoded() == DecodingOptions(beam_size=5, best_of=5, temperature=temperatures)
    options = parse_options(["--model", "m", "a.ogg"])
    assert (options.output_dir, options.output_format) == (".", OPENAI_FORMATS)
    assert (options.verbose, options.batch_size, options.channel) == (True, None, None)
    assert subtitle_layout(options) == SubtitleLayout()


def test_every_option_of_openai_whispers_command_is_understood():
    transcribe = pytest.importorskip("whisper.transcribe")
    source = open(transcribe.__file__, encoding="utf-8").read()  # noqa: SIM115
    theirs = set(re.findall(r'add_argument\("--(\w+)"', source))
    theirs -= {"model_dir"}  # of PyTorch's downloads
    assert len(theirs) > 25
    ours = vars(parse_options(["--model", "m", "a.ogg"]))
    assert theirs <= ours.keys()


def test_underscores_switches_and_none():
    line = """
        --beam_size none --best_of None --word_timestamps --carry_initial_prompt true --initial_prompt=a_b
        --suppress_tokens -1,220 --logprob_threshold none --no-speech-threshold NONE --language German
        --condition_on_previous_text False --hallucination_silence_threshold 2 --clip_timestamps 1,2.5
        --compression_ratio_threshold 3 --length_penalty 0.5 --sample-len 9
        --context-scale 1.5 --context-from-history --task translate --hotwords bees --prefix Well
        --repetition_penalty 1.2 --no_repeat_ngram_size 3 --multilingual --language_detection_segments 4
        --language_detection_threshold 0.7 --chunk_length 15 --vad energy --suppress_blank False
        --without_timestamps --max_initial_timestamp none
    """
    options = decoded(*shlex.split(line))
    assert options == DecodingOptions(
        beam_size=None,
        best_of=None,
        word_timestamps=True,
        carry_initial_prompt=True,
        initial_prompt="a_b",
        suppress_tokens="-1,220",
        logprob_threshold=None,
        no_speech_threshold=None,
        condition_on_previous_text=False,
        hallucination_silence_threshold=2.0,
        clip_timestamps="1,2.5",
        compression_ratio_threshold=3.0,
        length_penalty=0.5,
        sample_len=9,
        language="German",
        context_scale=1.5,
        context_from_history=True,
        task="translate",
        hotwords="bees",
        prefix="Well",
        repetition_penalty=1.2,
        no_repeat_ngram_size=3,
        multilingual=True,
        language_detection_segments=4,
        language_detection_threshold=0.7,
        chunk_length=15.0,
        vad="energy",
        suppress_blank=False,
        without_timestamps=True,
        max_initial_timestamp=None,
        temperature=tuple(np.arange(0, 1.0 + 1e-6, 0.2)),
    )


def test_names_of_files_are_left_alone():
    options = parse_options(["--explain", "a_b.ogg", "--model", "x_y", "-o", "o_p", "--", "--c_d.ogg"])
    assert options.audio == ["a_b.ogg", "--c_d.ogg"]
    assert parse_options(["a.ogg", "--model", "m", "b.ogg", "--explain", "c.ogg"]).audio == ["a.ogg", "b.ogg", "c.ogg"]
    assert (options.model, options.output_dir, options.explain) == ("x_y", "o_p", True)


def test_every_way_to_decode_is_an_option():
    assert DecodingOptions.__dataclass_fields__.keys() <= vars(parse_options(["--model", "m"])).keys()


def test_names_behind_two_hyphens_are_recordings():
    options = parse_options(["a.ogg", "--model", "m", "--", "-rf.wav", "--language", "--", "-1.wav"])
    assert options.audio == ["a.ogg", "-rf.wav", "--language", "--", "-1.wav"]


def test_batches_are_of_independent_windows():
    assert not decoded().independent_windows
    assert decoded("--batch-size", "4").independent_windows
    assert not decoded("--batch-size", "4", "--independent-windows", "False").independent_windows
    assert decoded("--independent_windows").independent_windows


def test_formats_and_channels():
    def parsed(*arguments: str) -> tuple:
        options = parse_options(["--model", "m", *arguments])
        return options.output_format, options.channel

    assert parsed("-f", "srt,csv,srt", "--channel", "right") == (("srt", "csv"), 1)
    assert parsed("-f", "lrc", "--channel", "3") == (("lrc",), 2)
    assert parsed("--output_format", "all", "--channel", "each") == (("txt", "vtt", "srt", "tsv", "json"), "each")


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("step", [0.2, 0.25, 0.7, 3.0])
def test_temperatures_rise_as_openai_whispers(start, step):
    given = decoded("--temperature", str(start), "--temperature-increment-on-fallback", str(step)).temperature
    np.testing.assert_array_equal(given, np.arange(start, 1.0 + 1e-6, step))
    assert decoded("--temperature", str(start), "--temperature-increment-on-fallback", "none").temperature == (start,)


def test_explanations_need_the_times_of_words():
    assert decoded("--explain").word_timestamps
    assert not decoded("--explain", "False").word_timestamps


def test_subtitles_are_laid_out_by_the_times_of_words():
    arguments = ["--model", "m", "--max-line-width", "40", "--max_line_count", "2", "--highlight_words", "True"]
    with pytest.raises(CwjaxError, match=r"--max-line-width goes by .* --word-timestamps"):
        subtitle_layout(parse_options(arguments))
    layout = subtitle_layout(parse_options([*arguments, "--word-timestamps"]))
    assert layout == SubtitleLayout(40, 2, None, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--beam-size", "0"], "beam_size is 0"),
        (["--temperature-increment-on-fallback", "0"], "--temperature-increment-on-fallback is 0"),
        (["--temperature", "nan"], "temperature"),
        (["--clip-timestamps", "3,1"], "ascending"),
        (["--patience", "2", "--beam-size", "none"], "patience"),
    ],
)
def test_impossible_values_are_one_line(arguments, reason):
    with pytest.raises(CwjaxError, match=reason) as caught:
        decoded(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--word-timestamps=maybe"], "argument --word-timestamps: 'maybe' is neither True nor False"),
        (["--beam-size", "many"], "argument --beam-size: invalid int or none value: 'many'"),
        (["--beams", "3"], "unrecognized arguments: --beams"),
        (["--output-format", "srt,doc"], "'doc' is unknown: choose from txt, vtt"),
        (["--channel", "0"], "'0' is unknown: choose from mix, left, right"),
        (["--vad", "loud"], "choose from"),
    ],
)
def test_wrong_usage_is_told_with_the_usage(capsys, arguments, reason):
    with pytest.raises(SystemExit) as caught:
        parse_options(["--model", "m", "a.ogg", *arguments])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 2


def test_help_tells_every_option_with_its_default_and_needs_no_jax():
    code = (
        "import sys, atexit; atexit.register(lambda: print('jax' in sys.modules)); from cwjax.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "transcribe", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("False\n")
    text = " ".join(run.stdout.split()).replace("- ", "-")
    names = vars(parse_options(["--model", "m"])).keys() - {"audio", "model", "debug"}
    for name in names:
        assert f"--{name.replace('_', '-')}" in text, name
    assert text.count("(default: ") == len(names)
