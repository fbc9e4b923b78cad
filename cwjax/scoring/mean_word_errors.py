"""The mean of the utterances' word error rates, as ProfASR-Bench reports it (arXiv 2512.23686).

Short utterances weigh as much as long ones, so it is no corpus's word error rate.
"""

import string

from cwjax.scoring.word_errors import errors_by_place

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def mean_word_errors(reference: str, hypothesis: str) -> float:
    """Word error rate of one utterance in small letters without ASCII's punctuation; without a reference, its words."""
    said, heard = (text.lower().translate(_NO_PUNCTUATION).split() for text in (reference, hypothesis))
    return errors_by_place(said, heard)[0].rate
