"""Finding the simulated customer a line to say: one for his tone, and never the same one twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from coach_server.domain.customer.mind import Memory, Tone
from coach_server.domain.customer.phrasebook import Phrasebook

# How often he leads in to what he says with a small word.
ACKS_SHARE = 0.6
LEADS_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Speech:
    """Lines of the book and of the scenario. What was taken is kept in the memory."""

    book: Phrasebook
    memory: Memory
    tone: Tone
    rng: random.Random

    def own(self, name: str, lines: Sequence[str]) -> str | None:
        """The next of the scenario's lines that was not said yet."""
        for number, line in enumerate(lines):
            key = f"{name}#{number}"
            if key not in self.memory.used:
                self.memory.used.add(key)
                return line
        return None

    def free(self, bucket: str) -> str | None:
        """A line of the bucket that was not said yet: one for his tone as long as there is one."""
        free = [(k, t) for k, t in self.book.bucket(bucket, self.tone) if k not in self.memory.used]
        toned = [pair for pair in free if pair[0].startswith(f"{bucket}.{self.tone}#")]
        if not free:
            return None
        key, text = self.rng.choice(toned or free)
        self.memory.used.add(key)
        return text

    def line(self, *buckets: str) -> str:
        """A fresh line of the first bucket that has one. Who has nothing left to say ends the talk."""
        for bucket in (*buckets, "filler"):
            if (line := self.free(bucket)) is not None:
                return line
        if not self.memory.over:
            self.memory.over = True
            return self.free("leaves") or self.book.lines["leaves"][0]
        return self.book.lines["after"][0]

    def again(self, topic: str, fact: str) -> str:
        """A fact that was told already, behind other words each time, as long as there are some."""
        for key, line in self.book.bucket("again", self.tone):
            if f"{key}:{topic}" not in self.memory.used:
                self.memory.used.add(f"{key}:{topic}")
                return line.replace("{fact}", fact)
        return self.line("again_and_again")

    def acked(self, said: str) -> str:
        """Behind a small word, from those who are not reserved, not every time."""
        return self._behind("ack", said, ACKS_SHARE)

    def led(self, bucket: str, said: str) -> str:
        return self._behind(bucket, said, LEADS_SHARE)

    def _behind(self, bucket: str, said: str, share: float) -> str:
        if self.tone is Tone.RESERVED or self.rng.random() >= share:
            return said
        lead = self.free(bucket)
        return f"{lead} {said}" if lead else said
