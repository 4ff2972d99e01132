"""Events, acks, binary data, namespaces, rooms and upgrades, alike on both drivers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
import socketio

from tests.api.engine_harness import DRIVERS, Driver, serve, until


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param  # type: ignore[no-any-return]


TRANSPORTS = pytest.mark.parametrize(
    "transports", [("websocket",), ("polling",), ("polling", "websocket")], ids="+".join
)


@TRANSPORTS
async def test_an_event_reaches_its_handler_and_the_ack_its_sender(
    driver: Driver, transports: tuple[str, ...]
) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        assert await client.call("NOTE", {"text": "שלום"}) == {"ok": True}
        assert served.seen.events == [(client.get_sid(), {"text": "שלום"})]


@TRANSPORTS
async def test_an_answer_emitted_to_the_sender_arrives(driver: Driver, transports: tuple[str, ...]) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        pong = asyncio.get_running_loop().create_future()
        client.on("PONG", pong.set_result)
        await client.emit("PING", {"at": 1})
        assert await asyncio.wait_for(pong, 5) == {"type": "PONG", "payload": {"at": 1}}


@TRANSPORTS
async def test_several_arguments_and_binary_ones_come_back_unchanged(
    driver: Driver, transports: tuple[str, ...]
) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        answer = await client.call("ECHO", ("a", b"\x00\xff", {"deep": [b"x" * 3000, 1.5, None]}))
        assert list(answer) == ["a", b"\x00\xff", {"deep": [b"x" * 3000, 1.5, None]}]


@TRANSPORTS
async def test_the_server_can_call_a_client_and_wait_for_its_ack(
    driver: Driver, transports: tuple[str, ...]
) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        client.on("ASK", lambda data: {"heard": data})
        assert await served.server.call("ASK", b"bin", to=client.get_sid(), timeout=5) == {"heard": b"bin"}


@TRANSPORTS
async def test_handlers_start_in_the_order_of_the_events_even_when_each_waits(
    driver: Driver, transports: tuple[str, ...]
) -> None:
    async with serve(driver) as served, served.client(*transports) as client:
        for number in range(30):
            await client.emit("HOLD", number)
            await client.emit("NOTE", b"between" if number % 3 == 0 else "between")
        await until(lambda: len(served.seen.events) == 60)
        held = [event for _, event in served.seen.events[::2]]
        assert held == [f"hold {number}" for number in range(30)]
        for number in range(30):
            served.seen.gates[str(number)].set()
        await until(lambda: len(served.seen.events) == 90)


async def test_an_ack_may_overtake_the_ack_of_a_handler_that_waits(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send('421["HOLD","a"]')
        await raw.send('422["NOTE",1]')
        assert await raw.read() == '432[{"ok":true}]'
        served.seen.gates["a"].set()
        assert await raw.read() == '431[{"ok":true,"gate":"a"}]'


async def test_events_sent_just_before_the_upgrade_are_neither_lost_nor_reordered(driver: Driver) -> None:
    async with serve(driver) as served:
        client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        await client.connect(served.url, auth={"apiKey": "right"}, transports=["polling"])
        sid = client.get_sid()
        for number in range(100):
            await client.emit("NOTE", number)
        await until(lambda: len(served.seen.events) == 100)
        assert [event for _, event in served.seen.events] == list(range(100))
        await served.server.disconnect(sid)
        await client.disconnect()


async def test_a_polling_client_that_sends_a_thousand_events_at_once_loses_none(driver: Driver) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        await raw.post(*(f'42["NOTE",{number}]' for number in range(1000)))
        await until(lambda: len(served.seen.events) == 1000)
        assert [event for _, event in served.seen.events] == list(range(1000))


async def test_a_large_body_that_arrives_in_pieces_is_read_whole(driver: Driver) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        text = "x" * 200_000
        await raw.post(*(f'42["NOTE","{number}{text}"]' for number in range(4)))
        await until(lambda: len(served.seen.events) == 4)
        assert [len(event) for _, event in served.seen.events] == [200_001] * 4


async def test_the_upgrade_moves_what_was_queued_to_the_websocket_in_order(driver: Driver) -> None:
    async with serve(driver) as served:
        polling = await served.polling()
        url = f"{served.endpoint}&transport=websocket&sid={polling.greeting['sid']}"
        async with served.http.ws_connect(url) as ws:
            await ws.send_str("2probe")
            assert (await ws.receive()).data == "3probe"
            assert await polling.poll() == ["6"]
            for number in range(5):
                await served.server.emit("TIP", number, to=polling.sid)
            await ws.send_str("5")
            frames: list[str] = []
            while len(frames) < 5:
                if (frame := (await ws.receive(5)).data) != "6":
                    frames.append(frame)
            assert frames == [f'42["TIP",{number}]' for number in range(5)]
            await ws.send_str('423["NOTE","over"]')
            assert (await ws.receive(5)).data == '433[{"ok":true}]'


async def test_a_failed_upgrade_leaves_the_polling_connection_as_it_was(driver: Driver) -> None:
    async with serve(driver) as served:
        polling = await served.polling()
        url = f"{served.endpoint}&transport=websocket&sid={polling.greeting['sid']}"
        for last_words in ("", "2wrong", "2probe"):
            async with served.http.ws_connect(url) as ws:
                if last_words:
                    await ws.send_str(last_words)
                if last_words == "2probe":
                    assert (await ws.receive()).data == "3probe"
                    assert await polling.poll() == ["6"]
        socket = served.server.eio.sockets[polling.greeting["sid"]]
        await until(lambda: not socket.upgrading)
        await served.server.emit("TIP", 1, to=polling.sid)
        assert '42["TIP",1]' in await polling.poll()


async def test_namespaces_are_separate_and_an_unknown_one_is_refused(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send("40/other,")
        frame = await raw.read()
        assert frame.startswith('40/other,{"sid":')
        await raw.send('42/other,5["NOTE",1]')
        assert await raw.read() == '43/other,5["other"]'
        await raw.send("40/nowhere,")
        assert await raw.read() == '44/nowhere,{"message":"Invalid namespace"}'
        assert await raw.ask("NOTE", 2) == [{"ok": True}]


async def test_a_catch_all_handler_gets_the_name_first(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:

        @served.server.on("*")
        async def anything(event: str, sid: str, data: Any = None) -> list[Any]:
            return [event, data]

        assert await raw.ask("SOMETHING", 1) == [["SOMETHING", 1]]
        assert await raw.ask("NOTE", 1) == [{"ok": True}]


async def test_a_plain_function_may_be_a_handler(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        served.server.on("PLAIN", lambda sid, data: {"got": data})
        assert await raw.ask("PLAIN", 4) == [{"got": 4}]


async def test_rooms_reach_their_members_on_every_transport(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as one, served.raw() as two:
        polling = await served.polling()
        for sid in (one.sid, polling.sid):
            await served.server.enter_room(sid, "wall")
        await served.server.emit("TIP", {"bin": b"\x01"}, to="wall")
        for raw in (one,):
            assert await raw.read() == '451-["TIP",{"bin":{"_placeholder":true,"num":0}}]'
            assert await raw.read() == b"\x01"
        assert await polling.poll() == ['451-["TIP",{"bin":{"_placeholder":true,"num":0}}]', "bAQ=="]
        assert await two.ask("NOTE") == [{"ok": True}]


async def test_an_unknown_event_is_answered_when_an_answer_is_asked_for(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        (answer,) = await raw.ask("NO_SUCH_EVENT")
        assert answer["ok"] is False and answer["code"] == "INVALID"


async def test_a_handler_that_raises_answers_the_ack_and_says_so_in_the_log(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        (answer,) = await raw.ask("BREAK")
        assert answer == {"ok": False, "code": "INTERNAL", "message": "The server could not do this."}
        assert any("event handler" in line and "a fault of the application" in line for line in served.log)
        assert await raw.ask("NOTE") == [{"ok": True}]


async def test_a_time_out_inside_a_handler_ends_that_handler_only(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:

        @served.server.on("SLOW")
        async def slow(sid: str) -> str:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "late"
            return "never"

        await raw.send('421["SLOW"]')
        await raw.send('422["SLOW"]')
        assert {await raw.read(), await raw.read()} == {'431["late"]', '432["late"]'}
        assert await raw.ask("NOTE") == [{"ok": True}]


async def test_a_flood_from_one_client_lets_the_others_through(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as loud, served.raw() as quiet:
        flood = asyncio.create_task(_flood(loud, 6000))
        before = 0
        for _ in range(10):
            assert await quiet.ask("NOTE", "quiet") == [{"ok": True}]
            before = len(served.seen.events)
        assert before < 6000
        await flood
        await until(lambda: len(served.seen.events) == 6010)


async def _flood(raw: Any, count: int) -> None:
    for number in range(count):
        await raw.send(f'42["NOTE",{number}]')
        if number % 500 == 0:
            await asyncio.sleep(0)


async def test_waiting_handlers_of_one_client_are_bounded_and_the_rest_follows(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw, served.raw() as other:
        for _ in range(400):
            await raw.send('42["HOLD","all"]')
        await raw.send('429["NOTE","last"]')
        await until(lambda: len(served.seen.events) == 256)
        assert await other.ask("NOTE", "witness") == [{"ok": True}]
        assert len(served.seen.events) == 257
        served.seen.gates["all"].set()
        assert await raw.read() == '439[{"ok":true}]'
        await until(lambda: len(served.seen.events) == 802)


async def test_the_end_and_the_disconnect_of_one_tick_are_both_seen(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send('42["HOLD","end"]')
        await raw.send("41")
        await raw.ws.close()
        await until(lambda: served.seen.partings)
        assert served.seen.partings == [(raw.sid, "client disconnect")]
        served.seen.gates["end"].set()
        await until(lambda: served.seen.events[-1:] == [(raw.sid, "free end")])
        await until(lambda: not served.server.eio.sockets)


@pytest.mark.parametrize(
    ("act", "reason"),
    [("41", "client disconnect"), ("1", "client disconnect"), ("close", "transport close")],
)
async def test_the_disconnect_handler_is_told_why(driver: Driver, act: str, reason: str) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await (raw.ws.close() if act == "close" else raw.send(act))
        await until(lambda: served.seen.partings)
        assert served.seen.partings == [(raw.sid, reason)]
        assert raw.sid not in served.server.manager.rooms.get("/", {}).get(None, {})


async def test_a_polling_client_that_says_good_bye_is_gone_at_once(driver: Driver) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        await raw.post("41", "1", '42["NOTE","too late"]')
        assert served.seen.partings == [(raw.sid, "client disconnect")]
        assert served.seen.events == [] and not served.server.eio.sockets


async def test_a_client_disconnected_by_the_server_hears_of_it(driver: Driver) -> None:
    async with serve(driver) as served, served.client() as client:
        gone = asyncio.get_running_loop().create_future()
        client.on("disconnect", lambda reason: gone.set_result(reason))
        sid = client.get_sid()
        await served.server.disconnect(sid)
        await asyncio.wait_for(gone, 5)
        assert served.seen.partings == [(sid, "server disconnect")]


async def test_a_refused_connect_tells_the_words_of_the_handler(driver: Driver) -> None:
    async with serve(driver) as served, served.raw(connect=False) as raw:
        for auth in ("", '{"apiKey":"wrong"}', '"right"', "[1]", '{"apiKey":["right"]}'):
            await raw.send(f"40{auth}")
            assert await raw.read() == '44{"message":"Authentication failed"}'
        await raw.connect()
        assert await raw.ask("NOTE") == [{"ok": True}]
        assert served.seen.partings == []


async def test_a_connection_that_goes_on_guessing_is_closed(driver: Driver) -> None:
    async with serve(driver) as served, served.raw(connect=False) as raw:
        for _ in range(11):
            await raw.send('40{"apiKey":"guess"}')
        await raw.closed()
        assert len(served.seen.connects) == 10


async def test_a_client_that_left_during_its_connect_leaves_nothing_behind(driver: Driver) -> None:
    async with serve(driver) as served:
        gate, asked = asyncio.Event(), asyncio.Event()

        @served.server.on("connect")
        async def slow_connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
            asked.set()
            await gate.wait()

        polling = await served.polling(connect=False)
        connecting = asyncio.create_task(polling.post("40"))
        await asked.wait()
        await polling.post("1")
        gate.set()
        await connecting
        assert not served.server.eio.sockets and not served.server.manager.rooms
        assert [reason for _, reason in served.seen.partings] == ["transport close"]


async def test_the_second_connect_to_one_namespace_is_refused_and_the_first_stands(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send('40{"apiKey":"right"}')
        assert json.loads((await raw.read())[2:]) == {"message": "Invalid namespace"}
        assert await raw.ask("NOTE") == [{"ok": True}]


async def test_the_greeting_is_that_of_the_published_server(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        polling = await served.polling()
        expected = {"pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1000000}
        assert raw.greeting == {"sid": raw.greeting["sid"], "upgrades": [], **expected}
        assert polling.greeting == {"sid": polling.greeting["sid"], "upgrades": ["websocket"], **expected}


async def test_a_ping_of_the_websocket_protocol_is_answered(driver: Driver) -> None:
    async with serve(driver) as served:
        async with served.http.ws_connect(f"{served.endpoint}&transport=websocket", autoping=False) as ws:
            await ws.receive()
            await ws.ping(b"alive?")
            message = await ws.receive(5)
            assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"alive?")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_nothing_is_kept_of_those_who_left(driver: Driver, transport: str) -> None:
    async with serve(driver) as served:
        for number in range(20):
            if transport == "polling":
                polling = await served.polling(connect=number % 2 == 0)
                await polling.post("1")
                continue
            async with served.raw(connect=number % 2 == 0) as raw:
                await raw.send('451-["NOTE",{"_placeholder":true,"num":0}]')
                await served.server.emit("ASK", 1, to=raw.sid, callback=print)
        server = served.server
        await until(lambda: not server.eio.sockets and not server.environ)
        assert (server._by_sid, server.manager.rooms, server.manager.callbacks) == ({}, {}, {})
        assert (server.manager.pending_connect, server.manager.eio_to_sid) == ({}, {})
        assert not server.eio._per_address
        await until(lambda: not server.eio._tasks)
