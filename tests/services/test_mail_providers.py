"""Mail: SES by its wire protocol, and the outbox folder."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from dataclasses import replace
from email.header import decode_header, make_header
from pathlib import Path

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import Invalid, ProviderError, ProviderTimeout, StorageFailed
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.mail import MailMessage, is_address, is_sender
from coach_server.providers.mail.outbox import Outbox
from coach_server.providers.mail.ses import Ses
from coach_server.testing import ManualClock
from tests.fakes.ses import FakeSes

MESSAGE = MailMessage(
    sender="Coach <coach@example.com>",
    to=("agent@example.com",),
    cc=("lead@example.org",),
    subject="Gespreksverslag: Zoë, 12 min",
    text="Hallo Zoë,\nhet ging goed. שלום",
    html="<p>Hallo Zoë, het ging goed. שלום</p>",
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def fake() -> AsyncIterator[FakeSes]:
    async with FakeSes() as fake:
        yield fake


@pytest.fixture
def ses(fake: FakeSes, http: aiohttp.ClientSession) -> Ses:
    keys = AwsCredentials(fake.keys.access_key, fake.keys.secret_key)
    return Ses(keys, fake.keys.region, http, endpoint=fake.url)


async def test_ses_takes_a_signed_message_and_gives_its_id(fake: FakeSes, ses: Ses) -> None:
    assert await ses.send(MESSAGE) == "ses-1"
    [sent] = fake.messages
    assert sent["FromEmailAddress"] == MESSAGE.sender
    assert sent["Destination"] == {
        "ToAddresses": ["agent@example.com"],
        "CcAddresses": ["lead@example.org"],
    }
    simple = sent["Content"]["Simple"]
    assert simple["Subject"] == {"Data": MESSAGE.subject, "Charset": "UTF-8"}
    assert simple["Body"]["Text"]["Data"] == MESSAGE.text
    assert simple["Body"]["Html"]["Data"] == MESSAGE.html


async def test_a_sender_name_outside_ascii_is_encoded_as_ses_wants_it(fake: FakeSes, ses: Ses) -> None:
    await ses.send(replace(MESSAGE, sender="Zoë <coach@example.com>"))
    sender = fake.messages[0]["FromEmailAddress"]
    assert sender.isascii()
    assert sender.endswith(" <coach@example.com>")
    assert str(make_header(decode_header(sender))) == "Zoë <coach@example.com>"


async def test_temporary_credentials_are_part_of_the_signature(
    fake: FakeSes, http: aiohttp.ClientSession
) -> None:
    keys = AwsCredentials(fake.keys.access_key, fake.keys.secret_key, "session-token")
    assert await Ses(keys, fake.keys.region, http, endpoint=fake.url).send(MESSAGE) == "ses-1"


async def test_a_wrong_secret_is_refused_for_good(fake: FakeSes, http: aiohttp.ClientSession) -> None:
    wrong = Ses(AwsCredentials(fake.keys.access_key, "x"), fake.keys.region, http, endpoint=fake.url)
    with pytest.raises(ProviderError, match="credentials") as caught:
        await wrong.send(MESSAGE)
    assert not caught.value.retryable
    assert fake.messages == []


@pytest.mark.parametrize(
    ("status", "kind", "sentence", "retryable"),
    [
        (400, "MessageRejected", "refused the message", False),
        (400, "MailFromDomainNotVerifiedException", "not verified", False),
        (400, "BadRequestException", "did not accept", False),
        (429, "TooManyRequestsException", "not available", True),
        (503, "ServiceUnavailable", "not available", True),
    ],
)
async def test_an_ses_fault_says_whether_another_try_may_help(
    fake: FakeSes, ses: Ses, status: int, kind: str, sentence: str, retryable: bool
) -> None:
    fake.refuse_with = (status, kind)
    with pytest.raises(ProviderError, match=sentence) as caught:
        await ses.send(MESSAGE)
    assert caught.value.retryable is retryable
    assert "vendor's own words" not in caught.value.message


@pytest.mark.parametrize("answer", ["", "[]", "{}", "<html>"])
async def test_an_ses_answer_without_an_id_is_a_fault(fake: FakeSes, ses: Ses, answer: str) -> None:
    fake.raw_answer = answer
    with pytest.raises(ProviderError, match="message id"):
        await ses.send(MESSAGE)


async def test_an_ses_time_out_is_not_retryable_because_the_message_may_be_on_its_way(
    fake: FakeSes, http: aiohttp.ClientSession
) -> None:
    fake.hang = True
    keys = AwsCredentials(fake.keys.access_key, fake.keys.secret_key)
    with pytest.raises(ProviderTimeout) as caught:
        await Ses(keys, fake.keys.region, http, endpoint=fake.url, timeout_s=0.05).send(MESSAGE)
    assert not caught.value.retryable


async def test_an_address_of_a_refused_message_never_reaches_the_log(fake: FakeSes, ses: Ses) -> None:
    fake.refuse_with = (400, "MessageRejected")
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{message} {extra}")
    try:
        with pytest.raises(ProviderError):
            await ses.send(MESSAGE)
    finally:
        logger.remove(sink)
    assert "MessageRejected" in "".join(lines)
    assert "example" not in "".join(lines)


async def test_the_outbox_writes_a_message_any_mail_program_opens(tmp_path: Path) -> None:
    message_id = await Outbox(tmp_path / "outbox", ManualClock()).send(MESSAGE)
    [file] = await asyncio.to_thread(lambda: list((tmp_path / "outbox").iterdir()))
    raw = await asyncio.to_thread(file.read_bytes)
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert message_id in file.name
    assert read["Subject"] == MESSAGE.subject
    assert read["To"] == "agent@example.com"
    assert read["Cc"] == "lead@example.org"
    assert read["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    text, html = read.get_body(("plain",)), read.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == MESSAGE.text.splitlines()
    assert "שלום" in html.get_content()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_outbox_ids_are_unguessable_file_names(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, ManualClock())
    ids = {await outbox.send(MESSAGE) for _ in range(5)}
    assert len(ids) == 5
    assert all(i.replace("-", "").isalnum() and len(i) >= 32 for i in ids)


async def test_an_outbox_that_cannot_be_written_is_a_storage_fault_and_leaves_no_half_file(
    tmp_path: Path,
) -> None:
    blocked = tmp_path / "outbox"
    await asyncio.to_thread(blocked.write_text, "a file where the folder should be")
    with pytest.raises(StorageFailed):
        await Outbox(blocked, ManualClock()).send(MESSAGE)
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == [blocked]


@pytest.mark.parametrize(
    "address",
    ["a@b.nl", "jan.de-vries+crm@mail.example.co.uk", "o'hara@example.com", "x@xn--bcher-kva.example"],
)
def test_usual_addresses_are_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "plain",
        "@example.com",
        "a@",
        "a@localhost",
        "a@example.com\nBcc: victim@example.org",
        "a@example.com\r\n",
        "a@example.com\n",
        "a@example.com, b@example.com",
        "a@example.com;b@example.com",
        "<a@example.com>",
        "Jan <a@example.com>",
        '"a b"@example.com',
        "a b@example.com",
        "a@exa mple.com",
        "a@-example.com",
        "a..b@example.com",
        ".a@example.com",
        "a@example..com",
        "a@[127.0.0.1]",
        "ä@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 60 + "." + "c" * 200 + ".com",
    ],
)
def test_what_could_be_something_else_than_one_address_is_none(address: str) -> None:
    assert not is_address(address)


@pytest.mark.parametrize("sender", ["a@b.nl", "Coach <a@b.nl>", "coach@localhost", '"Zoë, team" <a@b.nl>'])
def test_a_sender_may_carry_a_name_and_live_on_this_machine(sender: str) -> None:
    assert is_sender(sender)


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "Coach",
        "localhost",
        "@localhost",
        "a b@localhost",
        "Coach\n <a@b.nl>",
        "a@nowhere",
        "a@b.nl, c@d.nl",
    ],
)
def test_what_is_no_sender_is_none(sender: str) -> None:
    assert not is_sender(sender)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("subject", {"subject": "Verslag\r\nBcc: victim@example.org"}),
        ("subject", {"subject": "Verslag\u2028Bcc: victim@example.org"}),
        ("to", {"to": ("a@example.com\nBcc: b@example.org",)}),
        ("to", {"to": ()}),
        ("cc", {"cc": ("a@example.com", "no address")}),
        ("sender", {"sender": "Coach\r\nBcc: b@example.org <a@example.com>"}),
        ("sender", {"sender": "Coach"}),
    ],
)
def test_a_message_that_could_inject_a_header_cannot_be_made(
    field: str, change: dict[str, str | tuple[str, ...]]
) -> None:
    with pytest.raises(Invalid) as caught:
        replace(MESSAGE, **change)  # type: ignore[arg-type]
    assert caught.value.field == field
