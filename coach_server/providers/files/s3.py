"""S3-compatible storage over HTTP, path style (`/bucket/prefix/key`), signed with Signature Version 4.

Docs: Amazon S3 API reference, PutObject, GetObject, DeleteObject. Other vendors speak the same (`endpoint`).
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from loguru import logger
from yarl import URL

from coach_server.errors import NotFound, ProviderError, ProviderTimeout
from coach_server.providers import bounded
from coach_server.providers.aws_credentials import AwsCredentials
from coach_server.providers.files import MAX_FILE_BYTES, parts_of

ATTEMPTS = 2


class S3Files:
    """`prefix`: a folder in the bucket; `endpoint` (http or https) takes the place of the region's own
    address. A PUT is atomic: S3 shows the old object or the new one."""

    def __init__(
        self,
        credentials: AwsCredentials,
        region: str,
        bucket: str,
        http: aiohttp.ClientSession,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._http = http
        host = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
        folder = "/".join(part for part in (bucket, prefix.strip("/")) if part)
        self._base = f"{host}/{quote(folder)}"
        self._timeout_s = timeout_s

    async def put(self, key: str, data: bytes) -> None:
        status, _ = await self._ask("PUT", key, data)
        if status not in (200, 201, 204):
            raise _refusal(status)

    async def get(self, key: str) -> bytes:
        status, body = await self._ask("GET", key)
        if status == 404:
            raise NotFound("There is no such file.")
        if status != 200:
            raise _refusal(status)
        return body

    async def delete(self, key: str) -> None:
        status, _ = await self._ask("DELETE", key)
        if status not in (200, 204, 404):
            raise _refusal(status)

    async def _ask(self, method: str, key: str, data: bytes = b"") -> tuple[int, bytes]:
        """Once more after a fault that may pass: each of the three is harmless twice."""
        url = "/".join([self._base, *parts_of(key)])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, body = await self._ask_once(method, url, data)
            except ProviderError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                continue
            if (status != 429 and status < 500) or attempt == ATTEMPTS:
                return status, body
        raise ProviderError(retryable=True)

    async def _ask_once(self, method: str, url: str, data: bytes) -> tuple[int, bytes]:
        headers = await self._signed_headers(method, url, data)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.request(
                    method, URL(url, encoded=True), data=data or None, headers=headers, allow_redirects=False
                ) as response,
            ):
                return response.status, await bounded.body(response, MAX_FILE_BYTES)
        except TimeoutError as error:
            fault = ProviderTimeout("The file storage did not answer in time.", retryable=True)
            raise fault from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError("The file storage could not be reached.", retryable=True) from error

    async def _signed_headers(self, method: str, url: str, data: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/octet-stream"} if data else {}
        request = AWSRequest(method, url, headers=headers, data=data)
        # Over http the library would leave the body out of the signature.
        request.context["payload_signing_enabled"] = True
        S3SigV4Auth(await self._credentials.frozen(), "s3", self._region).add_auth(request)
        return dict(request.headers.items())


def _refusal(status: int) -> ProviderError:
    logger.bind(status=status).warning("the file storage refused a request")
    if status == 429 or status >= 500:
        return ProviderError("The file storage is not available.", retryable=True)
    if status in (401, 403):
        return ProviderError("The file storage refused the credentials.")
    return ProviderError("The file storage did not accept the request.")
