"""Where AWS keys come from: given ones, or botocore's chain (environment, profile, instance profile)."""

from __future__ import annotations

import asyncio

from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from coach_server.errors import ProviderError


class AwsCredentials:
    """Keys for one signature. botocore renews the temporary keys of an instance profile when they are due."""

    def __init__(
        self, access_key: str | None = None, secret_key: str | None = None, token: str | None = None
    ) -> None:
        self._lock = asyncio.Lock()
        self._held: Credentials | None = None
        if access_key and secret_key:
            self._held = Credentials(access_key, secret_key, token)

    async def frozen(self) -> ReadOnlyCredentials:
        # The chain reads files and asks the instance's metadata service: blocking, and slow without one.
        # The lock keeps a burst of first calls from asking it many times over.
        async with self._lock:
            try:
                return await asyncio.to_thread(self._freeze)
            except BotoCoreError as error:
                raise ProviderError("The AWS credentials could not be read.", retryable=True) from error

    def _freeze(self) -> ReadOnlyCredentials:
        if self._held is None:
            self._held = Session().get_credentials()
        if self._held is None:
            raise ProviderError("There are no AWS credentials.")
        return self._held.get_frozen_credentials()
