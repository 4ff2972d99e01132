"""What a client may not do, and what it costs it: the packet, seldom the connection, never the server."""

from __future__ import annotations

import asyncio
import json

import pytest

from coach_server.api.engine_wire import CoachPacket, Refused, WireJson
from coach_server.testing import ManualClock
from tests.api.engine_harness import DRIVERS, Driver, serve, until


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    return request.param  # type: ignore[no-any-return]


DEEP = "[" * 40 + "]" * 40

MALFORMED = {
    "no JSON": '42["NOTE",',
    "a half emoji": '42["NOTE","\\ud83d"]',
    "a number beyond all doubles": '42["NOTE",1e999]',
    "not a number": '42["NOTE",NaN]',
    "too deep": f'42["NOTE",{DEEP}]',
    "very deep": '42["NOTE",' + "[" * 50_000,
    "no array": '42{"a":1}',
    "an empty array": "42[]",
    "no name": "42[1,2]",
    "a null name": "42[null]",
    "nothing": "42",
    "no packet": "4",
    "an unknown packet type": '49["NOTE"]',
    "json without a type": '4{"a":1}',
    "deep json without a type": "4" + "[" * 50_000,
    "an unknown frame": "9",
    "words": "hello",
    "a client's ping": "2",
    "a noop": "6",
    "an upgrade": "5",
    "an open": "0{}",
    "a connect error": '44{"message":"x"}',
    "an ack without an id": "43[1]",
    "an ack of the counter": "430[1]",
    "an ack nobody waits for": "4399[1]",
    "an ack without an array": '431{"a":1}',
    "too many attachments": '455-["NOTE",{"_placeholder":true,"num":0}]',
    "a billion attachments": '451000000000-["NOTE"]',
    "attachments on an event": '421-["NOTE"]',
    "a huge ack id": "42" + "9" * 60 + '["NOTE"]',
    "an id of too many digits": "42" + "9" * 300 + '["NOTE"]',
    "a long namespace": "42/" + "n" * 500 + ',["NOTE"]',
    "an event for a namespace that is not connected": '42/other,["NOTE"]',
    "reserved: connect": '42["connect",{"REMOTE_ADDR":"1.2.3.4"},{"apiKey":"right"}]',
    "reserved: disconnect": '42["disconnect","client disconnect"]',
    "reserved: connect_error": '42["connect_error"]',
    "reserved: catch-all": '42["*","NOTE",1]',
    "reserved and binary": '451-["disconnect",{"_placeholder":true,"num":0}]',
    "a superscript digit": '42²["NOTE"]',
    "bytes that nothing announced": b'2["NOTE"]',
    "empty bytes": b"",
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_packet_costs_its_sender_nothing_but_the_packet(
    driver: Driver, frame: str | bytes
) -> None:
    async with serve(driver) as served, served.raw() as raw:
        connects = len(served.seen.connects)
        await raw.send(frame)
        assert await raw.ask("NOTE", "after") == [{"ok": True}]
        assert served.seen.events == [(raw.sid, "after")]
        assert (served.seen.partings, len(served.seen.connects)) == ([], connects)
        assert all(len(line) <= 400 and "Traceback" not in line for line in served.log)


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_packet_in_a_post_costs_only_itself(driver: Driver, frame: str | bytes) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        await raw.post(frame if isinstance(frame, str) else "bMlsiTk9URSJd", '42["NOTE","after"]')
        await until(lambda: served.seen.events == [(raw.sid, "after")])
        assert served.seen.partings == []
        assert all(len(line) <= 400 and "Traceback" not in line for line in served.log)


@pytest.mark.parametrize(
    "packet",
    [
        '425["NOTE",',
        '425["NOTE","\\ud83d"]',
        '425["connect"]',
        '4555-5["NOTE"]',
        "425[]",
        f'425["NOTE",{DEEP}]',
    ],
)
async def test_a_refused_event_that_asked_for_an_ack_gets_one(driver: Driver, packet: str) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send(packet)
        assert await raw.read() == '435[{"ok":false,"code":"INVALID","message":"The request is not valid."}]'


async def test_an_integer_over_64_bit_arrives_as_a_browser_would_read_it(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send(f'42["NOTE",{10**30}]')
        await until(lambda: served.seen.events == [(raw.sid, 1e30)])


async def test_what_the_server_says_is_always_valid_utf8(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await served.server.emit("TIP", {"half": "\ud83d", "huge": 2**70, 3: "key"}, to=raw.sid)
        assert json.loads((await raw.read())[2:]) == ["TIP", {"half": "\ud83d", "huge": 2**70, "3": "key"}]


async def test_events_before_connect_reach_no_handler(driver: Driver) -> None:
    async with serve(driver) as served, served.raw(connect=False) as raw:
        for frame in (
            '42["NOTE",1]',
            '425["NOTE",1]',
            '451-["NOTE",{"_placeholder":true,"num":0}]',
            b"x",
            "41",
            "431[1]",
        ):
            await raw.send(frame)
        await raw.connect()
        assert await raw.ask("NOTE", 2) == [{"ok": True}]
        assert served.seen.events == [(raw.sid, 2)]


async def test_four_attachments_of_a_megabyte_in_sum_pass(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        places = [{"_placeholder": True, "num": number} for number in range(4)]
        await raw.send(f"454-{json.dumps(['NOTE', places])}")
        for _ in range(4):
            await raw.send(b"x" * 250_000)
        await until(lambda: served.seen.events)
        assert served.seen.events == [(raw.sid, [b"x" * 250_000] * 4)]


async def test_more_than_a_megabyte_of_attachments_is_dropped_and_the_next_event_is_heard(
    driver: Driver,
) -> None:
    async with serve(driver) as served, served.raw() as raw:
        places = [{"_placeholder": True, "num": number} for number in range(4)]
        await raw.send(f"454-9{json.dumps(['NOTE', places])}")
        for _ in range(4):
            await raw.send(b"x" * 255_000)
        assert (await raw.read()).startswith('439[{"ok":false')
        assert await raw.ask("NOTE", 2) == [{"ok": True}]
        assert served.seen.events == [(raw.sid, 2)]


@pytest.mark.parametrize("num", ["1", "-1", '"0"', "null", "1e9", "[]", "true", "false"])
async def test_a_placeholder_must_name_an_attachment_that_is_there(driver: Driver, num: str) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send(f'451-["NOTE",{{"_placeholder":true,"num":{num}}}]')
        await raw.send(b"x")
        assert await raw.ask("NOTE", 2) == [{"ok": True}]
        assert served.seen.events == [(raw.sid, 2)]


async def test_text_in_the_place_of_an_attachment_drops_the_binary_event_and_is_heard(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send('451-["NOTE",{"_placeholder":true,"num":0}]')
        assert await raw.ask("NOTE", 2) == [{"ok": True}]
        assert served.seen.events == [(raw.sid, 2)]


async def test_a_binary_event_without_attachments_is_an_event(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        await raw.send('450-3["NOTE",1]')
        assert await raw.read() == '433[{"ok":true}]'


async def test_a_message_over_the_limit_ends_its_own_websocket_only(driver: Driver) -> None:
    async with serve(driver, max_message_bytes=10_000) as served, served.raw() as raw, served.raw() as other:
        await raw.send('42["NOTE","' + "x" * 9_000 + '"]')
        await until(lambda: len(served.seen.events) == 1)
        await raw.send('42["NOTE","' + "x" * 10_000 + '"]')
        await raw.closed()
        await until(lambda: served.seen.partings)
        assert await other.ask("NOTE") == [{"ok": True}]


async def test_a_packet_over_the_limit_in_a_post_is_left_out(driver: Driver) -> None:
    async with serve(driver, max_message_bytes=10_000) as served:
        raw = await served.polling()
        await raw.post('42["NOTE","' + "x" * 10_000 + '"]', '42["NOTE",2]')
        await until(lambda: served.seen.events == [(raw.sid, 2)])


@pytest.mark.parametrize(
    "body", [b"42" + b"x" * 1_000_001, b"\xff\xfe42", b"\x1e".join([b'42["NOTE"]'] * 5001)]
)
async def test_a_body_that_is_no_payload_ends_the_polling_session(driver: Driver, body: bytes) -> None:
    async with serve(driver) as served:
        raw = await served.polling()
        async with served.http.post(raw.endpoint, data=body) as response:
            assert response.status == 400
        assert served.seen.events == [] and not served.server.eio.sockets


async def test_a_socket_that_never_connects_is_closed_at_the_deadline(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw(connect=False) as idle, served.raw() as good:
        polling = await served.polling(connect=False)
        await clock.advance(7)
        assert len(served.server.eio.sockets) == 3
        await clock.advance(3)
        await idle.closed()
        await until(lambda: list(served.server.eio.sockets) == [good.greeting["sid"]])
        with pytest.raises(ConnectionError):
            for _ in range(2):
                await polling.poll()
        assert await good.ask("NOTE") == [{"ok": True}]


async def test_a_refused_connect_does_not_stop_the_deadline(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw(connect=False) as raw:
        await raw.send('40{"apiKey":"wrong"}')
        await raw.read()
        await clock.advance(10)
        await raw.closed()


async def test_a_client_taken_out_of_its_namespace_has_until_the_deadline_to_leave(driver: Driver) -> None:
    clock = ManualClock()
    async with serve(driver, clock=clock) as served, served.raw() as raw:
        await clock.advance(15)
        await served.server.disconnect(raw.sid)
        assert await raw.read() == "41"
        await clock.advance(10)
        await raw.closed()


async def test_one_address_holds_so_many_sockets_and_no_more(driver: Driver) -> None:
    async with serve(driver, max_sockets_per_ip=3) as served, served.raw(), served.raw() as second:
        await served.polling()
        async with served.http.get(f"{served.endpoint}&transport=polling") as response:
            assert (response.status, await response.text()) == (429, "Too many connections")
        await second.ws.close()
        await until(lambda: len(served.server.eio.sockets) == 2)
        async with served.raw() as third:
            assert await third.ask("NOTE") == [{"ok": True}]


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "6.6.6.6, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (2, "10.0.0.1", "10.0.0.1"),
        (1, "", "127.0.0.1"),
    ],
)
async def test_the_address_is_the_one_our_own_proxies_saw(
    driver: Driver, proxies: int, header: str, address: str
) -> None:
    async with (
        serve(driver, trust_proxy=proxies) as served,
        served.raw(headers={"X-Forwarded-For": header}) as raw,
    ):
        assert served.server.address(raw.sid) == address


async def test_deflate_is_never_agreed_to(driver: Driver) -> None:
    async with serve(driver) as served, served.raw(compress=15) as raw:
        assert raw.ws.compress == 0


async def test_the_same_complaint_is_not_written_for_ever(driver: Driver) -> None:
    async with serve(driver, clock=(clock := ManualClock())) as served, served.raw() as raw:
        for _ in range(500):
            await raw.send("42[")
        assert await raw.ask("NOTE") == [{"ok": True}]
        assert len(served.log) == 5
        await clock.advance(11)
        await raw.send("42[")
        assert await raw.ask("NOTE") == [{"ok": True}]
        assert len(served.log) == 6 and "'left_out': 495" in served.log[-1]
        assert served.server.figures()["refused: invalid JSON"] == 501


def test_json_of_32_levels_inside_an_event_is_accepted() -> None:
    inside = "[" * 32 + "]" * 32
    assert WireJson.loads(f'["NOTE",{inside}]')[0] == "NOTE"
    with pytest.raises(Refused):
        WireJson.loads(f'["NOTE",[{inside}]]')


def test_many_brackets_are_not_depth() -> None:
    assert len(WireJson.loads("[" + ",".join(["{}"] * 500) + "]")) == 500
    assert WireJson.loads('["' + "[" * 500 + '"]') == ["[" * 500]


def test_a_packet_written_by_the_server_reads_back() -> None:
    (head, attachment) = CoachPacket(data=["TIP", {"bin": b"x"}], id=4).encode()
    packet = CoachPacket(encoded_packet=head)
    assert packet.add_attachment(attachment) and packet.data == ["TIP", {"bin": b"x"}] and packet.id == 4


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        ('455-["NOTE"]', "too many attachments"),
        ('421-["NOTE"]', "attachments on a packet without any"),
        ('2["disconnect"]', "a reserved event name"),
        ("30[]", "unreadable ack"),
        ("3[]", "unreadable ack"),
        ('9["NOTE"]', "unknown packet type"),
    ],
)
def test_a_packet_is_refused_for_its_own_reason(packet: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        CoachPacket(encoded_packet=packet.removeprefix("4") if packet[:2] in ("45", "42") else packet)
    assert refused.value.reason == reason


async def test_an_ack_of_the_librarys_counter_breaks_no_later_ack(driver: Driver) -> None:
    async with serve(driver) as served, served.raw() as raw:
        for _ in range(2):
            asking = asyncio.create_task(served.server.call("ASK", to=raw.sid, timeout=5))
            frame = await raw.read()
            await raw.send("430[1]")
            await raw.send(f"43{frame[2:].partition('[')[0]}[2]")
            assert await asking == 2
