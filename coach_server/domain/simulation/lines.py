"""The lines of a persona as he uses them up: none twice, as long as there is another."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from coach_server.domain.phrases import sentences
from coach_server.domain.simulation.persona import Lines, SamplePhrases, pick
from coach_server.domain.wording import same_words

MOST_SENTENCES = 2
COOL = ("sceptical", "annoyed")


class UsedLines:
    """`said`: keys of the lines used before, oldest first (`sceptical#2`). `spoken`: texts that were said
    before by whomever. `seed` varies where a bucket is begun from session to session."""

    def __init__(
        self, phrases: SamplePhrases, language: str, seed: int, said: Sequence[str], spoken: Sequence[str]
    ) -> None:
        self._phrases, self._language, self._seed = phrases, language, seed
        self._spoken = [same_words(text) for text in spoken]
        self.said = tuple(said)

    def has_begun(self, bucket: str) -> bool:
        return any(key.startswith(f"{bucket}#") for key in self.said)

    def is_spoken(self, lines: Mapping[str, Lines]) -> bool:
        return self.count_spoken(lines) > 0

    def count_spoken(self, lines: Mapping[str, Lines]) -> int:
        return sum(self._was_spoken(line) for line in pick(lines, self._language))

    def line(self, bucket: str, lines: Mapping[str, Lines]) -> str | None:
        """A fresh line, None when there is none. Lines of one thing (`says.price`) keep their order; those of
        a mood begin anywhere."""
        own = pick(lines, self._language)
        start = 0 if "." in bucket or not own else zlib.crc32(f"{self._seed}{bucket}".encode()) % len(own)
        for step in range(len(own)):
            number = (start + step) % len(own)
            if (line := self.at(bucket, own, number)) is not None:
                return line
        return None

    def at(self, bucket: str, lines: Lines, number: int) -> str | None:
        """The line with this number, if it is there and fresh."""
        if number >= len(lines) or f"{bucket}#{number}" in self.said or self._was_spoken(lines[number]):
            return None
        return self._use(bucket, lines, number)

    def of_mood(self, *buckets: str) -> str:
        """A fresh line of the first bucket that has one, else of any; when he has said everything, what he
        said longest ago."""
        for bucket in (*buckets, *COOL, "interested", "small_talk"):
            if (line := self.line(bucket, getattr(self._phrases, bucket))) is not None:
                return line
        return self._oldest(buckets[0])

    def _oldest(self, bucket: str) -> str:
        lines = pick(getattr(self._phrases, bucket), self._language)
        last = {key: at for at, key in enumerate(self.said)}
        return self._use(bucket, lines, min(range(len(lines)), key=lambda n: last.get(f"{bucket}#{n}", -1)))

    def _use(self, bucket: str, lines: Lines, number: int) -> str:
        self.said = (*self.said, f"{bucket}#{number}")
        return lines[number]

    def _was_spoken(self, line: str) -> bool:
        return any(same_words(line) in spoken for spoken in self._spoken)


def joined(*parts: str | None) -> str | None:
    """As many as make two sentences, None of none."""
    said: list[str] = []
    for part in parts:
        if part and sentences(" ".join([*said, part])) <= MOST_SENTENCES:
            said.append(part)
    return " ".join(said) or None
