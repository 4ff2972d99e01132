"""The one family of errors. Raise these; `api/faults.py` alone turns them into replies.

The public sentence goes to clients, so it is built from ids and field names, never from what was said,
from a vendor's text or from a library's name.
"""

from __future__ import annotations


class CoachError(Exception):
    """Something the caller should hear about, with a stable code and a public sentence."""

    code = "INTERNAL"
    status = 500
    retryable = False

    def __init__(
        self, message: str = "", *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        self.retry_after_s = retry_after_s
        super().__init__(self.message)


class Invalid(CoachError):
    """The request is not valid."""

    code = "INVALID"
    status = 400


class Unauthorized(CoachError):
    """Authentication failed"""

    code = "UNAUTHORIZED"
    status = 401


class Forbidden(CoachError):
    """This role may not do that."""

    code = "FORBIDDEN"
    status = 403


class NotFound(CoachError):
    """There is nothing with this id that you may see."""

    code = "NOT_FOUND"
    status = 404


class Conflict(CoachError):
    """The thing is in a state that does not allow this."""

    code = "CONFLICT"
    status = 409


class TooLarge(CoachError):
    """The request is too large."""

    code = "TOO_LARGE"
    status = 413


class RateLimited(CoachError):
    """Too many requests."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True


class Unavailable(CoachError):
    """This is not available on this server now."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True


class StorageFailed(CoachError):
    """The server could not store this; nothing was changed."""

    code = "STORAGE_FAILED"
    status = 503
    retryable = True


class ProviderError(CoachError):
    """A vendor did not answer usefully. `retryable` says whether another try may help."""

    code = "PROVIDER_FAILED"
    status = 502

    def __init__(
        self,
        message: str = "The service behind this did not answer.",
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.retryable = retryable


class ProviderTimeout(ProviderError):
    """A vendor took too long."""

    code = "PROVIDER_TIMEOUT"
    status = 504


class ConfigError(CoachError):
    """The configuration or a data file is wrong. Stops the start, naming the file, line or variable."""

    code = "CONFIG"
