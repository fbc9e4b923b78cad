"""Shards put together: splits and ids of their cuts, the table of articles, and the index."""

import json
import os
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cwjax.data.corpora.reader import Facts, of_article
from cwjax.data.prepared.index import (
    AFTER_GAP,
    ARTICLES_FILE,
    BEGINS_RUN,
    LISTS_PREVIOUS,
    TABLES,
    cuts_file,
    hash_of,
    sizes_of,
    sounds_file,
    table_file,
)
from cwjax.data.prepared.shards import corpus_folder, part_file
from cwjax.data.prepared.splits import SPLITS


class Assembly:
    """Writes all of a prepared corpus but its sound and `corpus.json`; shard by shard, as `add` is called.

    Args:
        directory: in which it is put together.
        splits: of every article whose supervisions have none of their own.

    Attributes:
        portions: what each split holds, then what each subset that the corpus names does.
    """

    def __init__(self, directory: Path, splits: dict[str, str]):
        self.portions: dict[str, dict[str, Portion]] = {"splits": {}, "subsets": {}}
        self._directory, self._folder, self._splits = directory, corpus_folder(directory), splits
        self._stack = ExitStack()
        (self._folder / "index").mkdir(parents=True, exist_ok=True)
        self._tables = {name: self._open(table_file(name)) for name in TABLES}
        self._articles = self._open(ARTICLES_FILE)
        self._numbers: dict[str, tuple[int, int]] = {}  # of an article, and the checksum of its line
        self._ids: Counter[str] = Counter()
        self._cuts = 0
        self._shards: list[int] = []
        self._write("articles", [0])

    def _open(self, name: str) -> BinaryIO:
        return self._stack.enter_context((self._folder / name).open("wb"))

    def _write(self, table: str, rows: list[Any]) -> None:
        self._tables[table].write(np.array(rows, TABLES[table]).tobytes())

    def add(self, shard: int) -> None:
        """Adds a shard that has recordings."""
        with part_file(self._directory, shard, "articles").open(encoding="utf-8") as lines:
            articles = {article.name: article for article in map(self._article, lines)}
        with (
            part_file(self._directory, shard, "cuts").open(encoding="utf-8") as lines,
            (self._folder / cuts_file(shard)).open("wb") as file,
        ):
            for line in lines:
                self._add_cut(json.loads(line), shard, articles, file)
            _sync(file)
        self._tables["blocks"].write(part_file(self._directory, shard, "blocks").read_bytes())
        self._shards.append(shard)

    def _article(self, line: str) -> "_Article":
        """What is to be known of an article of a shard; the first of its name goes into the table."""
        facts = json.loads(line)
        name, checksum = facts.pop("id"), zlib.crc32(line.encode())
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers), checksum
            self._articles.write(line.encode())
            self._write("articles", [self._articles.tell()])
        number, known = self._numbers[name]
        return _Article(name, number, facts, facts if known == checksum else self._facts(number))

    def _facts(self, number: int) -> Facts:
        """As they stand in the table."""
        for file in (self._articles, self._tables["articles"]):
            file.flush()
        starts = np.fromfile(self._folder / table_file("articles"), TABLES["articles"])
        with (self._folder / ARTICLES_FILE).open("rb") as lines:
            lines.seek(int(starts[number]))
            return {name: value for name, value in json.loads(lines.readline()).items() if name != "id"}

    def _add_cut(self, cut: dict[str, Any], shard: int, articles: dict[str, "_Article"], file: BinaryIO) -> None:
        supervisions = cut.pop("supervisions")
        head = json.dumps(cut, ensure_ascii=False)[:-1] + ', "supervisions": ['
        file.write(head.encode())
        rows, before = [], None
        for one in supervisions:
            custom = one["custom"]
            article = articles[custom["article"]]
            custom["split"] = split = custom.get("split") or self._splits[custom["article"]]
            one["custom"] = of_article(custom, article.facts, article.listed)
            self._ids[one["id"]] += 1
            if (count := self._ids[one["id"]]) > 1:
                one["id"] = f"{one['id']}~{count}"
            start, end = one["start"], one["start"] + one["duration"]
            about, voice = (article.number, split, one.get("language")), one.get("speaker")
            flags = LISTS_PREVIOUS if "previous" in custom else 0
            if not before or before[0] != about or custom.get("gap_before"):
                flags |= BEGINS_RUN | AFTER_GAP
            elif before[1] != voice or start < before[2] or end < before[3]:
                flags |= BEGINS_RUN
            before = about, voice, start, end
            if rows:
                file.write(b", ")
            text = json.dumps(one, ensure_ascii=False).encode()
            rows.append((self._cuts, start, end, file.tell(), len(text), article.number, SPLITS.index(split), flags))
            file.write(text)
            for kind, name in (("splits", split), ("subsets", custom.get("subset"))):
                if name:
                    self.portions[kind].setdefault(name, Portion()).add(one, article.number)
        file.write(b"]}\n")
        custom = cut["custom"]
        samples = cut["recording"]["num_samples"]
        self._write("cuts", [(shard, custom["offset"], custom["size"], samples, hash_of(cut["id"]))])
        self._write("supervisions", rows)
        self._cuts += 1

    def finish(self) -> dict[str, Any]:
        """Puts everything on the disk; gives what `corpus.json` has of it."""
        with self._stack:
            for file in (self._articles, *self._tables.values()):
                _sync(file)
        wanted = {name(shard) for shard in self._shards for name in (cuts_file, sounds_file)}
        for path in (self._folder / "shards").iterdir():
            if f"shards/{path.name}" not in wanted:
                path.unlink()
        names = [*sorted(wanted), ARTICLES_FILE, *map(table_file, TABLES)]
        return {"shards": self._shards, "files": sizes_of(self._folder, names)}


class _Article(NamedTuple):
    name: str
    number: int
    facts: Facts
    listed: Facts  # those of the first article of this name


class Portion:
    """What a split or a subset holds."""

    def __init__(self) -> None:
        self._utterances, self._seconds = 0, 0.0
        self._articles: set[int] = set()
        self._speakers: set[str] = set()

    def add(self, supervision: dict[str, Any], article: int) -> None:
        """Counts a supervision."""
        self._utterances += 1
        self._seconds += supervision["duration"]
        self._articles.add(article)
        self._speakers.add(supervision.get("speaker", ""))

    def as_dict(self) -> dict[str, float]:
        """The numbers."""
        return {
            "utterances": self._utterances,
            "hours": round(self._seconds / 3600, 4),
            "articles": len(self._articles),
            "speakers": len(self._speakers),
        }


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
