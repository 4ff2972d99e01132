"""Amazon SES, API version 2: `POST /v2/email/outbound-emails`, signed with Signature Version 4.

Docs: Amazon SES API v2 reference, SendEmail. SES builds the MIME message itself from the parts it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formataddr, parseaddr

import aiohttp
import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from loguru import logger
from yarl import URL

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers import bounded
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.mail import MailMessage

_REFUSALS = {
    "AccountSuspendedException": "The mail account is suspended.",
    "LimitExceededException": "The mail service's limit is reached.",
    "MailFromDomainNotVerifiedException": "The sender's domain is not verified at the mail service.",
    "MessageRejected": "The mail service refused the message.",
    "SendingPausedException": "Sending is paused at the mail service.",
}


class Ses:
    """`endpoint` (http or https) takes the place of the region's own address."""

    def __init__(
        self,
        credentials: AwsCredentials,
        region: str,
        http: aiohttp.ClientSession,
        *,
        endpoint: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._http = http
        self._url = (endpoint or f"https://email.{region}.amazonaws.com").rstrip(
            "/"
        ) + "/v2/email/outbound-emails"
        self._timeout_s = timeout_s

    async def send(self, message: MailMessage) -> str:
        body = orjson.dumps(_request(message))
        headers = self._signed_headers(body, await self._credentials.frozen())
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.post(URL(self._url, encoded=True), data=body, headers=headers) as response,
            ):
                raw = await bounded.body(response)
        except TimeoutError as error:
            # Not retried: the message may have been taken, and a second report is worse than none.
            raise ProviderTimeout("The mail service did not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The mail service could not be reached.", retryable=True) from error
        if response.status != 200:
            raise _refusal(response.status, response.headers, raw)
        return _message_id(raw)

    def _signed_headers(self, body: bytes, credentials: ReadOnlyCredentials) -> dict[str, str]:
        request = AWSRequest("POST", self._url, headers={"Content-Type": "application/json"}, data=body)
        SigV4Auth(credentials, "ses", self._region).add_auth(request)
        return dict(request.headers.items())


def _request(message: MailMessage) -> dict[str, object]:
    return {
        # SES wants names outside ASCII as encoded words.
        "FromEmailAddress": formataddr(parseaddr(message.sender)),
        "Destination": {"ToAddresses": list(message.to), "CcAddresses": list(message.cc)},
        "Content": {
            "Simple": {
                "Subject": _content(message.subject),
                "Body": {"Text": _content(message.text), "Html": _content(message.html)},
            }
        },
    }


def _content(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}


def _refusal(status: int, headers: Mapping[str, str], raw: bytes) -> ProviderError:
    """The kind of fault is in a header (`Name:http://…`) or in the body's `__type` (`prefix#Name`)."""
    kind = headers.get("x-amzn-ErrorType", "").partition(":")[0] or _body_kind(raw)
    logger.bind(status=status, kind=kind).warning("the mail service refused a message")
    if status == 429 or status >= 500:
        return ProviderError("The mail service is not available.", retryable=True)
    if status == 403:
        return ProviderError("The mail service refused the credentials.")
    return ProviderError(_REFUSALS.get(kind, "The mail service did not accept the message."))


def _body_kind(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["__type"]).rpartition("#")[2][:60]
    except (ValueError, TypeError, KeyError):
        return ""


def _message_id(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["MessageId"])
    except (ValueError, TypeError, KeyError):
        raise ProviderError("The mail service gave no message id.") from None
