from __future__ import annotations

from sqlalchemy import text

from coach_server.storage.database import Database


async def test_a_started_database_is_healthy(database: Database) -> None:
    assert await database.healthy()
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


def test_a_valkey_answers(redis_url: str) -> None:
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        assert client.ping()
