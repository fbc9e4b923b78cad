"""Two transcripts under each other, the words marked in which they differ."""

from collections.abc import Sequence

from cwjax.evaluation.differences import Stretch, compare

RED, GREEN, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def comparison(without: str, with_context: str, colour: bool) -> str:
    """Lines that show a transcript made without context, and the same made with it.

    Words that differ stand in brackets; three dots where the other transcript has words more.
    """
    words = without.split(), with_context.split()
    stretches = compare(*words)
    changed = sum(max(len(one.first), len(one.second)) for one in stretches if not one.same)
    count = f"{changed} of {len(words[1])} words" if changed else "nothing"
    return (
        f"without context: {_marked(words[0], stretches, 'first', RED if colour else '')}\n"
        f"with context:    {_marked(words[1], stretches, 'second', GREEN if colour else '')}\n"
        f"the context changes {count}"
    )


def _marked(words: Sequence[str], stretches: Sequence[Stretch], side: str, colour: str) -> str:
    pieces = []
    for stretch in stretches:
        text = " ".join(words[place] for place in getattr(stretch, side))
        pieces.append(text if stretch.same else f"{colour}[{text or '...'}]{PLAIN if colour else ''}")
    return " ".join(pieces)
