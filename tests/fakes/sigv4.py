"""Checks a Signature Version 4 with nothing but the standard library, so that the signing library is not its
own witness."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Keys:
    access_key: str
    secret_key: str
    region: str
    service: str


def presigned_is_right(keys: Keys, path: str, raw_query: str, host: str) -> bool:
    pairs = raw_query.split("&")
    unsigned = [pair for pair in pairs if not pair.startswith("X-Amz-Signature=")]
    values = dict(parse_qsl(raw_query))
    if values.get("X-Amz-SignedHeaders") != "host" or int(values.get("X-Amz-Expires", "0")) > 300:
        return False
    canonical = "\n".join(
        ["GET", path, "&".join(sorted(unsigned)), f"host:{host}\n", "host", hashlib.sha256(b"").hexdigest()]
    )
    scope = values["X-Amz-Credential"].partition("/")[2]
    if not values["X-Amz-Credential"].startswith(keys.access_key + "/") or not _right_scope(keys, scope):
        return False
    expected = _signature(keys, canonical, values["X-Amz-Date"], scope)
    return hmac.compare_digest(expected, values.get("X-Amz-Signature", ""))


def signed_is_right(keys: Keys, path: str, headers: Mapping[str, str], body: bytes) -> bool:
    algorithm, _, rest = headers.get("Authorization", "").partition(" ")
    parts = dict(part.split("=", 1) for part in rest.split(", ")) if rest else {}
    if algorithm != "AWS4-HMAC-SHA256" or not {"host", "x-amz-date"} <= set(
        parts["SignedHeaders"].split(";")
    ):
        return False
    lines = [f"{name}:{headers[name].strip()}" for name in parts["SignedHeaders"].split(";")]
    canonical = "\n".join(
        ["POST", path, "", *lines, "", parts["SignedHeaders"], hashlib.sha256(body).hexdigest()]
    )
    access_key, _, scope = parts["Credential"].partition("/")
    if access_key != keys.access_key or not _right_scope(keys, scope):
        return False
    return hmac.compare_digest(_signature(keys, canonical, headers["X-Amz-Date"], scope), parts["Signature"])


def _right_scope(keys: Keys, scope: str) -> bool:
    return scope.split("/")[1:] == [keys.region, keys.service, "aws4_request"]


def _signature(keys: Keys, canonical: str, date: str, scope: str) -> str:
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + keys.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
