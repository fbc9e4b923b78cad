"""What was said before a window, and what the decoder is told of it."""

from cwjax.data.examples.whisper_tokens import WhisperTokens
from cwjax.inference.options import DecodingOptions
from cwjax.inference.segments import DecodedWindow
from cwjax.inference.transcript import Segment


class History:
    """What was said in windows that follow each other.

    Args:
        options: of the recording.
        tokens: the model's.
        longest: most tokens that the decoder can be told.

    Attributes:
        last_speech: seconds where the last word ended.
    """

    def __init__(self, options: DecodingOptions, tokens: WhisperTokens, longest: int):
        self.last_speech = 0.0
        self._options, self._tokens, self._longest = options, tokens, longest
        prompt = options.initial_prompt or ()
        self._initial = tokens.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self._hotwords = tokens.encode(options.hotwords)[:longest] if options.hotwords and not options.prefix else []
        self._said = list(self._initial)
        self._prompt_since = 0  # place of the first one that the next window is told

    @property
    def text(self) -> str:
        """What was said."""
        return self._tokens.text(self._said[len(self._initial) :])

    def add(self, segments: list[Segment], window: DecodedWindow) -> None:
        """Goes on after a window with those segments."""
        self._said += [token for segment in segments for token in segment.tokens]
        if not self._options.condition_on_previous_text or window.temperature > 0.5:
            self._prompt_since = len(self._said)

    def previous(self) -> tuple[int, ...]:
        """The tokens that the next window is told: hotwords, and what was said, as much as there is room for."""
        always, since = self._hotwords, self._prompt_since
        said = self._said
        if self._options.independent_windows:
            said, since = self._initial, 0
        elif self._options.carry_initial_prompt:
            always, since = always + self._initial, max(since, len(self._initial))
        room = self._longest - len(always)
        return (*always, *(said[since:][-room:] if room > 0 else ()))
