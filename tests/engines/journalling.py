"""A process that journals as fast as it can and tells each sequence once it is told to be on disk.

Usage: python -m tests.engines.journalling <database url> <conversation id> <first sequence>
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from coach_server.clock import SystemClock
from coach_server.storage import call_events, conversations, transcripts
from coach_server.storage.database import Database
from coach_server.storage.journal import Journal
from tests.storage.samples import NOW, conversation, utterance


async def main(url: str, id: str, first: int) -> None:
    database = Database(url, clock=SystemClock())
    await database.start()
    journal = Journal(database)
    owner = asyncio.create_task(journal.run())
    await journal.put(conversations.insert(conversation(id)))
    sequences = itertools.count(first)

    async def talk() -> None:
        for sequence in sequences:
            await journal.put(
                transcripts.insert(id, utterance(sequence, f"words {sequence}")),
                call_events.insert(id, sequence, "HEARD", {"sequence": sequence}, NOW),
            )
            os.write(1, f"{sequence}\n".encode())

    await asyncio.gather(owner, *(talk() for _ in range(20)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
