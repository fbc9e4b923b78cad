"""Training, validation and test sets that share neither a speaker nor an article.

Speakers and articles that occur together form a group, and a group is never divided. The group's
name decides its split by a hash, so articles stay where they are when the corpus grows, unless what is
new joins two groups.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cwjax.errors import CwjaxError

SPLITS = ("train", "validation", "test")
SPLITS_FILE = "splits.json"
HEAVY_GROUP_ARTICLES = 20


class Member(NamedTuple):
    """That a speaker is heard in an article; `split` is what the corpus itself says, or empty."""

    article: str
    speaker: str
    split: str = ""


def article_splits(
    members: Iterable[Member],
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
    root: Path | None = None,
) -> dict[str, str]:
    """The split of every article.

    Args:
        members: of a whole corpus; an article without a speaker forms a group alone. Articles whose split is given
            keep it, and take the rest of their group with them.
        validation, test: expected shares of the groups. Groups of more than 20 articles, made by the
            most diligent speakers, always train: one of them would dominate a test.
        seed: another seed, another assignment.
        root: corpus root; a `splits.json` in it, {"train": [article identifiers], "validation":
            [...], "test": [...]}, replaces every other assignment.

    A small corpus may leave validation or test empty; `splits.json` is the cure.

    Raises CwjaxError if the shares are impossible, or if `splits.json` is malformed, lacks an article,
    or puts an article or a speaker into two splits.
    """
    if min(validation, test) < 0 or validation + test > 1:
        raise CwjaxError(f"splits: the shares of validation ({validation}) and test ({test}) must be within 0..1")
    members = list(members)
    if root is not None and (root / SPLITS_FILE).is_file():
        return _fixed_splits(root / SPLITS_FILE, members)
    given = {member.article: member.split for member in members if member.split}
    splits: dict[str, str] = {}
    for name, articles in _groups(members).items():
        place = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8]) / 2**64
        known = {given[article] for article in articles if article in given}
        if known:
            split = known.pop() if len(known) == 1 else "train"
        elif len(articles) > HEAVY_GROUP_ARTICLES or place >= validation + test:
            split = "train"
        else:
            split = "validation" if place < validation else "test"
        splits.update(dict.fromkeys(articles, split))
    return splits | given


def _groups(members: Sequence[Member]) -> dict[str, set[str]]:
    """Articles connected by common speakers, under the group's name: its first speaker or article."""
    leaders: dict[tuple[str, str], tuple[str, str]] = {}

    def leader(node: tuple[str, str]) -> tuple[str, str]:
        leaders.setdefault(node, node)
        while leaders[node] != node:
            leaders[node] = leaders[leaders[node]]
            node = leaders[node]
        return node

    for member in members:
        article = leader(("unknown speaker of", member.article))
        if member.speaker:
            first, second = sorted((article, leader(("speaker", member.speaker))))
            leaders[second] = first
    groups: dict[str, set[str]] = defaultdict(set)
    for member in members:
        groups[" ".join(leader(("unknown speaker of", member.article)))].add(member.article)
    return groups


def _fixed_splits(path: Path, members: Sequence[Member]) -> dict[str, str]:
    """The split of every article according to a file, once that is known to be sound."""
    try:
        lists = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CwjaxError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(lists, dict) or not set(lists) <= set(SPLITS):
        raise CwjaxError(f'{path}: must hold {{"train": [...], "validation": [...], "test": [...]}}')
    splits: dict[str, str] = {}
    for split, articles in lists.items():
        if not isinstance(articles, list) or not all(isinstance(article, str) for article in articles):
            raise CwjaxError(f"{path}: {split} must be a list of article identifiers")
        for article in articles:
            if splits.setdefault(article, split) != split:
                raise CwjaxError(f"{path}: article {article} is in {splits[article]} and in {split}; keep one")
    speakers: dict[str, str] = {}
    for member in members:
        if member.article not in splits:
            raise CwjaxError(f"{path}: article {member.article} is in no split; add it to one")
        split = splits[member.article]
        if member.speaker and speakers.setdefault(member.speaker, split) != split:
            raise CwjaxError(
                f"{path}: speaker {member.speaker} is in {speakers[member.speaker]} and, with article "
                f"{member.article}, in {split}; move the speaker's articles into one split"
            )
    return splits
