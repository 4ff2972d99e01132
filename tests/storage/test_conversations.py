from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coach_server.errors import Invalid
from coach_server.storage import conversations
from coach_server.storage.conversations import StoredConversation
from coach_server.storage.database import Database
from tests.storage.samples import NOW, conversation, start, store


async def load(database: Database, id: str = "c1") -> StoredConversation:
    async with database.read() as conn:
        found = await conversations.load(conn, id)
    assert found is not None
    return found


def saved(number: int, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "state_sequence": number,
        "last_seq": number,
        "last_sequence": number,
        "last_seen_at": NOW + number,
        "usage": {},
    }
    return conversations.save_state("c1", {"n": number}, **(values | changes))


async def end(database: Database, id: str = "c1", *, analysis: bool = True) -> bool:
    async with database.transaction() as conn:
        return await conversations.end(
            conn, id, status="ended", now=NOW + 60, state={"done": True}, usage={"tips": 3}, analysis=analysis
        )


async def test_a_conversation_comes_back_as_it_was_stored(database: Database) -> None:
    new = conversation(
        user_id="u1",
        team_id="t1",
        agent_id="a1",
        playbook="b2b",
        idempotency_key="key",
        metadata={"customerName": "Jörg", "nested": {"n": [1, 2.5, None, True]}},
        consent={"by": "u1", "version": 2},
        store_transcript=False,
        state={"stage": "GREETING"},
        usage={"tips": 0},
        owner="node-1",
        lease_until=NOW + 30.25,
        started_at=NOW + 0.125,
    )
    await store(database, conversations.insert(new))
    found = await load(database)
    for name in new.__dataclass_fields__:
        assert getattr(found, name) == getattr(new, name), name
    assert (found.status, found.analysis_status, found.ended_at) == ("active", "none", None)
    assert (found.state_sequence, found.last_seq, found.last_sequence) == (0, 0, 0)


async def test_an_unknown_conversation_is_none(database: Database) -> None:
    async with database.read() as conn:
        assert await conversations.load(conn, "nothing") is None


async def test_a_later_state_is_never_turned_back(database: Database) -> None:
    """A former owner that has not noticed yet that it lost its lease still saves."""
    await start(database)
    await store(database, saved(5))
    await store(database, saved(4))
    await store(database, saved(5, last_seq=4))
    found = await load(database)
    assert (found.state, found.state_sequence, found.last_seen_at) == ({"n": 5}, 5, NOW + 5)


async def test_the_state_of_an_ended_conversation_stays(database: Database) -> None:
    await start(database)
    assert await end(database)
    await store(database, saved(9))
    assert (await load(database)).state == {"done": True}


async def test_only_one_of_many_ends_a_conversation(database: Database) -> None:
    await start(database, owner="node-1", lease_until=NOW + 30)
    assert sorted(await asyncio.gather(*(end(database) for _ in range(5)))) == [False] * 4 + [True]
    found = await load(database)
    assert (found.status, found.ended_at, found.usage) == ("ended", NOW + 60, {"tips": 3})
    assert (found.analysis_status, found.owner, found.lease_until) == ("pending", None, None)
    async with database.read() as conn:
        assert await conversations.pending_analyses(conn, limit=10) == ["c1"]


async def test_a_conversation_that_ends_without_analysis_waits_for_none(database: Database) -> None:
    await start(database)
    assert await end(database, analysis=False)
    assert (await load(database)).analysis_status == "none"


async def test_a_failed_analysis_is_told_but_never_over_a_good_one(database: Database) -> None:
    from coach_server.storage import analyses

    await start(database, "c1", "c2")
    await end(database, "c1")
    await end(database, "c2")
    async with database.transaction() as conn:
        await analyses.save(conn, "c2", {}, 1, NOW)
        await conversations.fail_analysis(conn, "c1")
        await conversations.fail_analysis(conn, "c2")
    assert (await load(database, "c1")).analysis_status == "failed"
    assert (await load(database, "c2")).analysis_status == "done"


@pytest.mark.parametrize(
    ("owner", "lease_until", "granted"),
    [
        (None, None, True),
        ("me", NOW + 30, True),
        ("other", NOW + 30, False),
        ("other", NOW, False),
        ("other", NOW - 0.001, True),
        ("other", None, True),
    ],
    ids=["free", "mine", "held", "held to this moment", "lease over", "no lease"],
)
async def test_a_conversation_is_claimed_when_nobody_holds_it(
    database: Database, owner: str | None, lease_until: float | None, granted: bool
) -> None:
    await start(database, owner=owner, lease_until=lease_until)
    async with database.transaction() as conn:
        assert await conversations.claim(conn, "c1", owner="me", now=NOW, lease_s=30) is granted
    found = await load(database)
    assert (found.owner == "me") is granted
    if granted:
        assert found.lease_until == NOW + 30


async def test_of_two_claimers_one_gets_it(database: Database) -> None:
    async def claim(owner: str) -> bool:
        async with database.transaction() as conn:
            return await conversations.claim(conn, "c1", owner=owner, now=NOW, lease_s=30)

    await start(database)
    got = await asyncio.gather(*(claim(f"node-{n}") for n in range(8)))
    assert got.count(True) == 1
    assert (await load(database)).owner == f"node-{got.index(True)}"


async def test_an_ended_or_unknown_conversation_cannot_be_claimed(database: Database) -> None:
    await start(database)
    await end(database)
    async with database.transaction() as conn:
        assert not await conversations.claim(conn, "c1", owner="me", now=NOW, lease_s=30)
        assert not await conversations.claim(conn, "nothing", owner="me", now=NOW, lease_s=30)


async def test_renewing_tells_which_conversations_are_still_ours(database: Database) -> None:
    await start(database, "mine", owner="me", lease_until=NOW)
    await start(database, "theirs", owner="other", lease_until=NOW)
    async with database.transaction() as conn:
        ids = ["mine", "theirs", "nothing"]
        assert await conversations.renew(conn, ids, owner="me", now=NOW, lease_s=30) == {"mine"}
        assert await conversations.renew(conn, [], owner="me", now=NOW, lease_s=30) == set()
    assert (await load(database, "mine")).lease_until == NOW + 30
    assert (await load(database, "theirs")).lease_until == NOW


async def test_only_the_owner_releases(database: Database) -> None:
    await start(database, owner="me", lease_until=NOW + 30)
    async with database.transaction() as conn:
        assert not await conversations.release(conn, "c1", owner="other")
        assert await conversations.release(conn, "c1", owner="me")
        assert await conversations.claim(conn, "c1", owner="other", now=NOW, lease_s=30)


async def test_an_idempotency_key_finds_what_it_started_for_that_caller_only(database: Database) -> None:
    await start(database, "nobody", idempotency_key="k")
    await start(database, "somebody", idempotency_key="k", user_id="u1")
    async with database.read() as conn:
        find = conversations.find_by_idempotency
        nobody, somebody = await find(conn, "extension", None, "k"), await find(conn, "extension", "u1", "k")
        assert nobody is not None and nobody.id == "nobody" and nobody.user_id is None
        assert somebody is not None and somebody.id == "somebody"
        assert await find(conn, "extension", "u2", "k") is None
        assert await find(conn, "another key", None, "k") is None


async def test_an_idempotency_key_starts_one_conversation(database: Database) -> None:
    from coach_server.errors import StorageFailed

    await start(database, "first", idempotency_key="k")
    with pytest.raises(StorageFailed):
        await start(database, "second", idempotency_key="k")
    await start(database, "third")
    await start(database, "fourth")


async def test_stale_conversations_are_those_nobody_holds_and_nobody_was_seen_in(database: Database) -> None:
    await start(database, "older", started_at=NOW - 20)
    await start(database, "old", started_at=NOW - 10, owner="crashed", lease_until=NOW - 1)
    await start(database, "held", started_at=NOW - 10, owner="node", lease_until=NOW + 1)
    await start(database, "young", started_at=NOW)
    await start(database, "ended", started_at=NOW - 10)
    await end(database, "ended")
    async with database.read() as conn:
        assert await conversations.stale(conn, before=NOW - 5, now=NOW, limit=10) == ["older", "old"]
        assert await conversations.stale(conn, before=NOW - 5, now=NOW, limit=1) == ["older"]


async def listed(database: Database, **wanted: Any) -> list[str]:
    async with database.read() as conn:
        return [row.id for row in await conversations.listing(conn, **wanted)]


async def test_a_list_shows_what_its_viewer_may_see_newest_first(database: Database) -> None:
    await start(database, "a", user_id="u1", team_id="t1", started_at=NOW)
    await start(database, "b", user_id="u2", team_id="t1", agent_id="agent", started_at=NOW + 1)
    await start(database, "c", user_id="u3", team_id="t2", started_at=NOW + 2)
    await start(database, "d", principal="crm", started_at=NOW + 3)
    await end(database, "b")
    assert await listed(database, everyone=True) == ["d", "c", "b", "a"]
    assert await listed(database, principal="extension") == ["c", "b", "a"]
    assert await listed(database, principal="crm") == ["d"]
    assert await listed(database, principal="extension", user_id="u1") == ["a"]
    assert await listed(database, team_id="t1") == ["b", "a"]
    assert await listed(database, team_id="t1", status="active") == ["a"]
    assert await listed(database, everyone=True, agent_id="agent") == ["b"]
    assert await listed(database, principal="nobody") == []


async def test_a_list_without_a_viewer_is_a_mistake(database: Database) -> None:
    with pytest.raises(ValueError, match="viewer"):
        await listed(database)


async def test_pages_of_a_list_hold_each_conversation_once(database: Database) -> None:
    """Also where several began in the same millisecond."""
    ids = [f"c{n}" for n in range(10)]
    for n, id in enumerate(ids):
        await start(database, id, started_at=NOW + n // 4 * 0.001)
    seen: list[str] = []
    cursor = None
    while True:
        async with database.read() as conn:
            page = await conversations.listing(conn, everyone=True, limit=3, cursor=cursor)
        if not page:
            break
        seen += [row.id for row in page]
        cursor = page[-1].cursor
    assert seen == sorted(ids, key=lambda id: (int(id[1:]) // 4, id), reverse=True)


@pytest.mark.parametrize("cursor", ["", "x", ".c1", "12", "1e5.c1", "-1.c1", "9" * 40 + ".c1", "٣.c1"])
async def test_a_cursor_that_no_list_gave_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await listed(database, everyone=True, cursor=cursor)
    assert refusal.value.field == "cursor"
