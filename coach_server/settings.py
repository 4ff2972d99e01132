"""Settings from the environment and `.env`. Every mistake is reported at once, with the variable's name.

`python -m coach_server.cli docs` writes `.env.example` from this file; a test compares them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from coach_server.errors import ConfigError

MIN_KEY_CHARS = 32
DATA_KEY_BYTES = 32  # AES-256
MAX_KEY_CHARS = 512  # a longer one is refused at the handshake
_TEMPLATE = re.compile(
    r"(your[-_ ]|change[-_ ]?me|example[-_ ]?key|replace[-_ ](me|this|with)|secure-random-key|xxxx|<.*>"
    r"|placeholder)",
    re.I,
)
_EXTENSION_ORIGIN = re.compile(r"chrome-extension://[a-p]{32}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


class SocketDriver(StrEnum):
    LEAN = "lean"
    STOCK = "stock"


def _aliases(*names: str) -> AliasChoices:
    return AliasChoices(*names)


Group = dict[str, Any]


def _group(name: str) -> Group:
    return {"group": name}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    # Server
    app_env: AppEnv = Field(
        AppEnv.DEVELOPMENT,
        validation_alias=_aliases("APP_ENV", "NODE_ENV"),
        description="`production` refuses to start with an unsafe configuration. Alias NODE_ENV.",
        json_schema_extra=_group("Server"),
    )
    host: str = Field("127.0.0.1", validation_alias="HOST", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, validation_alias="PORT", description="Port to listen on.")
    data_dir: Path = Field(
        Path("./data"),
        validation_alias="DATA_DIR",
        description="Folder of the SQLite file, the generated key, the mail outbox and every written file.",
    )
    node_id: str = Field(
        "",
        max_length=64,
        validation_alias="NODE_ID",
        description="Name of this instance among several. Empty: host name and port.",
    )
    log_level: str = Field("info", validation_alias="LOG_LEVEL", description="debug, info, warning or error.")
    log_format: str = Field(
        "",
        pattern="^(|json|text)$",
        validation_alias="LOG_FORMAT",
        description="json or text. Empty: json in production, text elsewhere.",
    )
    trust_proxy: bool | None = Field(
        None,
        validation_alias="TRUST_PROXY",
        description="Believe X-Forwarded-For and X-Forwarded-Proto. Empty: only in production.",
    )
    socket_driver: SocketDriver = Field(
        SocketDriver.LEAN,
        validation_alias="SOCKET_DRIVER",
        description="lean, or stock: the Socket.IO library's own WebSocket driver.",
    )

    # Access
    backend_api_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        validation_alias=_aliases("BACKEND_API_KEY", "API_KEY"),
        description="API keys, comma-separated, each `key` or `name:key`; in production at least 32 "
        "characters. Empty in development: one is generated, kept in DATA_DIR and printed once. "
        "Alias API_KEY.",
        json_schema_extra=_group("Access"),
    )
    cors_origin: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias=_aliases("CORS_ORIGIN", "ALLOWED_ORIGINS"),
        description="Origins that may connect, comma-separated, compared exactly: https://app.example.com, "
        "chrome-extension://<32 letters>. Empty in development: every chrome-extension id and "
        "localhost; `*` is refused in production. Alias ALLOWED_ORIGINS.",
    )
    token_secret: SecretStr = Field(
        SecretStr(""),
        validation_alias="TOKEN_SECRET",
        description="Signs user tokens. Empty: derived from the first API key (the same on every instance).",
    )
    max_sockets_per_ip: int = Field(
        1000, ge=1, validation_alias="MAX_SOCKETS_PER_IP", description="Open sockets of one address."
    )
    max_calls_per_key: int = Field(
        2000, ge=1, validation_alias="MAX_CALLS_PER_KEY", description="Live conversations of one API key."
    )

    # Storage
    database_url: SecretStr = Field(
        SecretStr(""),
        validation_alias="DATABASE_URL",
        description="postgresql://… for several instances. Empty: SQLite in DATA_DIR, or RDS_HOSTNAME and "
        "its companions where Elastic Beanstalk sets them.",
        json_schema_extra=_group("Storage"),
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        validation_alias="REDIS_URL",
        description="redis://, rediss://, valkey:// … : needed when several instances share one database.",
    )
    data_encryption_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="DATA_ENCRYPTION_KEY",
        description="Encrypts what people say before it is stored: 32 random bytes as base64 "
        "(`openssl rand -base64 32`), or several as `id:base64,id2:base64`; the first one writes, all of "
        "them read. Empty: plain text.",
    )

    transcript_retention_days: int = Field(
        90,
        ge=0,
        le=36_500,
        validation_alias="TRANSCRIPT_RETENTION_DAYS",
        description="Words of a conversation are deleted so many days after its end; figures stay. 0: never.",
    )

    # The model
    openai_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="OPENAI_API_KEY",
        description="Without it the built-in coach answers.",
        json_schema_extra=_group("The model"),
    )
    openai_base_url: str = Field(
        "",
        validation_alias="OPENAI_BASE_URL",
        description="Any server that speaks the OpenAI API: http://localhost:11434/v1. Empty: the vendor's.",
    )
    openai_model: str = Field(
        "gpt-6-luna", validation_alias="OPENAI_MODEL", description="Model of live tips."
    )
    openai_model_cheap: str = Field(
        "gpt-6-luna",
        validation_alias="OPENAI_MODEL_CHEAP",
        description="Model once half the cost cap is spent.",
    )
    openai_model_analysis: str = Field(
        "gpt-6-luna", validation_alias="OPENAI_MODEL_ANALYSIS", description="Model of the post-call summary."
    )
    supervisor_model: str = Field(
        "gpt-6-luna",
        validation_alias=_aliases("SUPERVISOR_MODEL", "OPENAI_MODEL_SUPERVISOR"),
        description="Model that supervises simulations. Alias OPENAI_MODEL_SUPERVISOR.",
    )
    tip_timeout_ms: int = Field(
        3500,
        ge=200,
        le=20000,
        validation_alias="TIP_TIMEOUT_MS",
        description="Total time a tip may take on the model, retry included; then the built-in "
        "coach answers.",
    )
    cost_cap_usd_per_call: float = Field(
        0.25,
        ge=0,
        validation_alias="COST_CAP_USD_PER_CALL",
        description="Model money a call may cost. 0: no cap.",
    )
    cost_cap_usd_per_day: float = Field(
        25.0,
        ge=0,
        validation_alias="COST_CAP_USD_PER_DAY",
        description="Model money a day may cost. 0: no cap.",
    )

    # Coaching
    warmup_ms: int = Field(
        180_000,
        ge=0,
        le=3_600_000,
        validation_alias="WARMUP_MS",
        description="Time before the first tip (seed default: three minutes). A client may set its own.",
        json_schema_extra=_group("Coaching"),
    )
    tip_interval_ms: int = Field(
        30_000,
        ge=100,
        le=3_600_000,
        validation_alias="TIP_INTERVAL_MS",
        description="Time between tips, auto mode.",
    )
    silence_ms: int = Field(
        3_000,
        ge=50,
        le=60_000,
        validation_alias="SILENCE_MS",
        description="Silence that ends a captured answer.",
    )
    reaction_timeout_ms: int = Field(
        30_000,
        ge=100,
        le=600_000,
        validation_alias="REACTION_TIMEOUT_MS",
        description="How long the customer's reaction is waited for.",
    )
    away_grace_ms: int = Field(
        10_000,
        ge=0,
        le=600_000,
        validation_alias="AWAY_GRACE_MS",
        description="No model calls for a client that is away longer.",
    )
    abandon_ms: int = Field(
        3_600_000,
        ge=1_000,
        validation_alias="ABANDON_MS",
        description="A client that is away this long has left: the conversation ends as abandoned.",
    )
    default_language: str = Field(
        "en", pattern="^(en|nl|he)$", validation_alias="DEFAULT_LANGUAGE", description="en, nl or he."
    )
    playbook_dir: Path | None = Field(
        None,
        validation_alias="PLAYBOOK_DIR",
        description="Folder with your own playbooks (TOML). Empty: DATA_DIR/playbooks, if there is one.",
    )
    consent_required: bool = Field(
        False,
        validation_alias="CONSENT_REQUIRED",
        description="Keep no transcript of a conversation that was started without consent.",
    )

    # Practice
    roleplay_open: bool = Field(
        False,
        validation_alias="ROLEPLAY_OPEN",
        description="Let anyone practise without credentials, under the first API key, and read anybody's "
        "progress by name. For clients that send none, behind a gate of your own.",
        json_schema_extra=_group("Practice"),
    )
    roleplay_abandon_ms: int = Field(
        120_000,
        ge=1_000,
        le=86_400_000,
        validation_alias="ROLEPLAY_ABANDON_MS",
        description="A practice session without a sign of life for so long is abandoned.",
    )
    roleplay_grace_ms: int = Field(
        900_000,
        ge=0,
        le=86_400_000,
        validation_alias="ROLEPLAY_GRACE_MS",
        description="An abandoned session can be resumed for so long; then it is over and analysed.",
    )
    avatar_provider: str = Field(
        "",
        pattern="^(|off|liveavatar|heygen)$",
        validation_alias="AVATAR_PROVIDER",
        description="off, liveavatar or heygen (superseded). Empty: the one whose key is set, else off.",
    )
    liveavatar_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="LIVEAVATAR_API_KEY", description="Key of LiveAvatar."
    )
    liveavatar_avatar_id: str = Field(
        "", validation_alias="LIVEAVATAR_AVATAR_ID", description="Id of the avatar (a UUID)."
    )
    liveavatar_voice_id: str = Field(
        "", validation_alias="LIVEAVATAR_VOICE_ID", description="Id of its voice. Empty: the avatar's own."
    )
    liveavatar_base_url: str = Field(
        "https://api.liveavatar.com",
        min_length=1,
        validation_alias="LIVEAVATAR_BASE_URL",
        description="Where LiveAvatar answers.",
    )
    liveavatar_sandbox: bool = Field(
        False, validation_alias="LIVEAVATAR_SANDBOX", description="Sessions of the vendor's sandbox."
    )
    heygen_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="HEYGEN_API_KEY", description="Key of HeyGen's streaming avatar."
    )
    heygen_avatar_id: str = Field(
        "", validation_alias="HEYGEN_AVATAR_ID", description="Name or id of the avatar."
    )
    heygen_voice_id: str = Field("", validation_alias="HEYGEN_VOICE_ID", description="Id of its voice.")
    heygen_kb_id: str = Field(
        "",
        validation_alias="HEYGEN_KB_ID",
        description="Id of its knowledge base (`coach knowledge export`).",
    )
    heygen_base_url: str = Field(
        "https://api.heygen.com",
        min_length=1,
        validation_alias="HEYGEN_BASE_URL",
        description="Where HeyGen answers.",
    )

    # Simulation
    simulation_prefix: str = Field(
        "BAT",
        pattern="^[A-Za-z][A-Za-z0-9]{0,15}$",
        validation_alias="SIMULATION_PREFIX",
        description="What the ids of simulations begin with: BAT-001.",
        json_schema_extra=_group("Simulation"),
    )
    simulation_grace_ms: int = Field(
        60_000,
        ge=0,
        le=3_600_000,
        validation_alias="SIMULATION_GRACE_MS",
        description="A simulation whose line dropped can be gone on with for so long; then it is over.",
    )
    simulation_max_ms: int = Field(
        1_800_000,
        ge=60_000,
        le=7_200_000,
        validation_alias="SIMULATION_MAX_MS",
        description="The longest simulation.",
    )
    realtime_provider: str = Field(
        "",
        pattern="^(|openai|offline|openai,offline)$",
        validation_alias="REALTIME_PROVIDER",
        description="Who speaks for the customer: openai, offline (the built-in customer), or "
        "both in this order. Empty: OpenAI when its key is set, then the built-in one.",
    )
    realtime_model: str = Field(
        "gpt-realtime-2.1-mini", validation_alias="REALTIME_MODEL", description="OpenAI's speech model."
    )
    realtime_transcribe_model: str = Field(
        "gpt-transcribe",
        validation_alias="REALTIME_TRANSCRIBE_MODEL",
        description="What writes down the trainee's words.",
    )
    realtime_url: str = Field(
        "",
        validation_alias="REALTIME_URL",
        description="Another endpoint of the Realtime API (wss://host/v1/realtime). Empty: derived from "
        "OPENAI_BASE_URL, else the vendor's.",
    )
    realtime_vad: str = Field(
        "server",
        pattern="^(server|semantic)$",
        validation_alias="REALTIME_VAD",
        description="What ends the trainee's turn: server (silence) or semantic (meaning).",
    )
    tts_provider: str = Field(
        "",
        pattern="^(|off|elevenlabs|deepgram|elevenlabs,deepgram|deepgram,elevenlabs)$",
        validation_alias="TTS_PROVIDER",
        description="Who gives the built-in customer a voice: off, elevenlabs, deepgram, or both in order of "
        "preference. Empty: ElevenLabs when its key is set, else off.",
    )
    elevenlabs_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="ELEVENLABS_API_KEY", description="Key of ElevenLabs."
    )
    elevenlabs_base_url: str = Field(
        "https://api.elevenlabs.io",
        min_length=1,
        validation_alias="ELEVENLABS_BASE_URL",
        description="Where ElevenLabs answers.",
    )
    elevenlabs_model: str = Field(
        "eleven_flash_v2_5",
        validation_alias="ELEVENLABS_MODEL",
        description="Its model; Hebrew is spoken by eleven_v3.",
    )
    elevenlabs_voices: str = Field(
        "",
        validation_alias="ELEVENLABS_VOICES",
        description="`nl=ID, verse=ID, verse/nl=ID`: a voice by language, by persona's voice, or by both.",
    )
    deepgram_voices: str = Field(
        "", validation_alias="DEEPGRAM_VOICES", description="The same for Deepgram's voices."
    )
    cost_cap_usd_per_simulation: float = Field(
        1.5,
        ge=0,
        validation_alias="COST_CAP_USD_PER_SIMULATION",
        description="Model money a simulation may cost before its customer is the built-in one. 0: no cap.",
    )
    files_provider: str = Field(
        "local",
        pattern="^(local|s3)$",
        validation_alias="FILES_PROVIDER",
        description="Where the data files of simulations are kept: local (DATA_DIR) or s3.",
    )
    s3_bucket: str = Field("", validation_alias="S3_BUCKET", description="Bucket of the data files.")
    s3_prefix: str = Field("", validation_alias="S3_PREFIX", description="Folder in it.")
    s3_endpoint_url: str = Field(
        "",
        validation_alias="S3_ENDPOINT_URL",
        description="Another S3-compatible storage (https://host). Empty: AWS in AWS_REGION.",
    )
    batman_api_url: str = Field(
        "",
        validation_alias="BATMAN_API_URL",
        description="Outside API that sessions can be exported to. Empty: no export.",
    )
    batman_api_auth: SecretStr = Field(
        SecretStr(""),
        validation_alias="BATMAN_API_AUTH",
        description="Its bearer token; also the key that signs what is sent.",
    )

    # Speech to text
    stt_provider: str = Field(
        "",
        pattern="^(|deepgram|aws|deepgram,aws|aws,deepgram)$",
        validation_alias="STT_PROVIDER",
        description="deepgram, aws, or both in order of preference. Empty: Deepgram when its key is set.",
        json_schema_extra=_group("Speech to text"),
    )
    deepgram_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="DEEPGRAM_API_KEY", description="Key of Deepgram."
    )
    deepgram_base_url: str = Field(
        "https://api.deepgram.com",
        validation_alias="DEEPGRAM_BASE_URL",
        description="Where Deepgram answers.",
    )
    deepgram_model: str = Field("nova-3", validation_alias="DEEPGRAM_MODEL", description="Deepgram model.")

    # AWS
    aws_region: str = Field(
        "us-east-1",
        validation_alias="AWS_REGION",
        description="Region of Transcribe and SES. Credentials come from AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY or the instance profile.",
        json_schema_extra=_group("AWS"),
    )
    aws_transcribe_url: str = Field(
        "",
        validation_alias="AWS_TRANSCRIBE_URL",
        description="Another endpoint for Transcribe (wss://host:port).",
    )

    # Mail
    mail_provider: str = Field(
        "outbox",
        pattern="^(outbox|ses)$",
        validation_alias="MAIL_PROVIDER",
        description="ses, or outbox: messages are written to DATA_DIR/outbox.",
        json_schema_extra=_group("Mail"),
    )
    email_from_address: str = Field(
        "coach@localhost", validation_alias="EMAIL_FROM_ADDRESS", description="Sender of reports."
    )
    report_allowed_domains: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="REPORT_ALLOWED_DOMAINS",
        description="Mail domains reports may go to, comma-separated. Empty: any. Set it where clients carry "
        "the API key with them, as the extension does.",
    )
    aws_ses_url: str = Field("", validation_alias="AWS_SES_URL", description="Another endpoint for SES.")

    @field_validator("backend_api_key", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("report_allowed_domains", mode="before")
    @classmethod
    def _split_domains(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().lstrip("@").lower() for part in value.split(",") if part.strip())

    @field_validator("cors_origin", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())

    @field_validator("cors_origin")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _EXTENSION_ORIGIN.fullmatch(origin) and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    "each origin must be https://host[:port] or chrome-extension://<32 letters a-p>, "
                    "without a path"
                )
        return origins

    @field_validator("data_encryption_key")
    @classmethod
    def _check_data_keys(cls, value: SecretStr) -> SecretStr:
        _data_keys(value.get_secret_value())
        return value

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, value: str) -> str:
        if value.lower() not in ("debug", "info", "warning", "warn", "error"):
            raise ValueError("must be debug, info, warning or error")
        return "warning" if value.lower() == "warn" else value.lower()

    @property
    def is_production(self) -> bool:
        return self.app_env is AppEnv.PRODUCTION

    @property
    def api_keys(self) -> list[tuple[str, str]]:
        """(name, key); unnamed ones are called `default`, `key-2`, …"""
        named = []
        for number, secret in enumerate(self.backend_api_key, start=1):
            name, colon, key = secret.get_secret_value().partition(":")
            if colon and re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
                named.append((name, key))
            else:
                fallback = "default" if number == 1 else f"key-{number}"
                named.append((fallback, secret.get_secret_value()))
        return named

    @property
    def data_keys(self) -> list[tuple[str, bytes]]:
        """(id, 32 bytes) of DATA_ENCRYPTION_KEY; the first one writes."""
        return _data_keys(self.data_encryption_key.get_secret_value())

    @property
    def trusts_proxy(self) -> bool:
        return self.is_production if self.trust_proxy is None else self.trust_proxy

    @property
    def resolved_database_url(self) -> str:
        """DATABASE_URL, else Elastic Beanstalk's coupled database, else SQLite in DATA_DIR."""
        if url := self.database_url.get_secret_value():
            return url
        if host := os.environ.get("RDS_HOSTNAME"):
            user = quote(os.environ.get("RDS_USERNAME", ""), safe="")
            password = quote(os.environ.get("RDS_PASSWORD", ""), safe="")
            port, name = os.environ.get("RDS_PORT", "5432"), os.environ.get("RDS_DB_NAME", "ebdb")
            return f"postgresql://{user}:{password}@{host}:{port}/{name}?sslmode=require"
        return f"sqlite:///{(self.data_dir / 'coach.sqlite3').resolve()}"

    def problems(self) -> list[str]:
        """What the server must not start with; one sentence each, naming the variable."""
        found = []
        names = [name for name, _ in self.api_keys]
        if len(set(names)) != len(names):
            found.append("BACKEND_API_KEY: each key needs a name of its own.")
        for name, key in self.api_keys:
            if not key:
                found.append(f"BACKEND_API_KEY ({name}) is empty.")
            elif len(key) > MAX_KEY_CHARS:
                found.append(f"BACKEND_API_KEY ({name}) is longer than {MAX_KEY_CHARS} characters.")
        urls = {
            "OPENAI_BASE_URL": self.openai_base_url,
            "DEEPGRAM_BASE_URL": self.deepgram_base_url,
            "LIVEAVATAR_BASE_URL": self.liveavatar_base_url,
            "HEYGEN_BASE_URL": self.heygen_base_url,
            "ELEVENLABS_BASE_URL": self.elevenlabs_base_url,
            "S3_ENDPOINT_URL": self.s3_endpoint_url,
            "BATMAN_API_URL": self.batman_api_url,
        }
        for variable, url in urls.items():
            if url and not re.match(r"https?://[^\s/]+", url):
                found.append(f"{variable} must be a URL such as https://host/v1.")
        if self.realtime_url and not re.match(r"(wss?|https?)://[^\s/]+", self.realtime_url):
            found.append("REALTIME_URL must be a URL such as wss://host/v1/realtime.")
        if self.realtime_provider.startswith("openai") and not self.openai_api_key.get_secret_value():
            found.append(f"OPENAI_API_KEY is needed for REALTIME_PROVIDER={self.realtime_provider}.")
        voices = {"elevenlabs": self.elevenlabs_api_key, "deepgram": self.deepgram_api_key}
        for vendor, secret in voices.items():
            if vendor in self.tts_provider and not secret.get_secret_value():
                found.append(f"{vendor.upper()}_API_KEY is needed for TTS_PROVIDER={self.tts_provider}.")
        if self.batman_api_url and not self.batman_api_auth.get_secret_value():
            found.append("BATMAN_API_AUTH is needed beside BATMAN_API_URL: it signs what is sent.")
        if self.files_provider == "s3" and not self.s3_bucket:
            found.append("S3_BUCKET is needed for FILES_PROVIDER=s3.")
        found += self._avatar_problems()
        if not self.is_production:
            return found
        if not self.data_encryption_key.get_secret_value():
            found.append("DATA_ENCRYPTION_KEY is missing: openssl rand -base64 32 makes one; keep it safe.")
        if not self.api_keys:
            found.append("BACKEND_API_KEY is missing: set a random key of at least 32 characters.")
        for name, key in self.api_keys:
            if _TEMPLATE.search(key):
                found.append(f"BACKEND_API_KEY ({name}) is a template value: set a random key.")
            elif 0 < len(key) < MIN_KEY_CHARS:
                found.append(f"BACKEND_API_KEY ({name}) is shorter than {MIN_KEY_CHARS} characters.")
        if "*" in self.cors_origin:
            found.append("CORS_ORIGIN must not be * in production: list the origins that may connect.")
        return found

    def _avatar_problems(self) -> list[str]:
        """A vendor that was chosen by name needs its key and an avatar; one with a key an avatar."""
        vendors = {
            "liveavatar": ("LIVEAVATAR", self.liveavatar_api_key, self.liveavatar_avatar_id),
            "heygen": ("HEYGEN", self.heygen_api_key, self.heygen_avatar_id),
        }
        found = []
        for name, (prefix, key, avatar_id) in vendors.items():
            chosen, has_key = self.avatar_provider == name, bool(key.get_secret_value())
            if chosen and not has_key:
                found.append(f"{prefix}_API_KEY is needed for AVATAR_PROVIDER={name}.")
            if has_key and self.avatar_provider in ("", name) and not avatar_id:
                found.append(f"{prefix}_AVATAR_ID is needed beside {prefix}_API_KEY.")
        return found


def _data_keys(value: str) -> list[tuple[str, bytes]]:
    """Raises ValueError, which names the place of the wrong key and never repeats it."""
    keys: dict[str, bytes] = {}
    for number, part in enumerate((part.strip() for part in value.split(",") if part.strip()), start=1):
        id, colon, encoded = part.rpartition(":")
        if colon and not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", id):
            raise ValueError(f"the id of key {number} must be 1 to 32 letters, digits, - or _")
        key = _decoded(encoded)
        if len(key) != DATA_KEY_BYTES:
            raise ValueError(
                f"key {number} must be {DATA_KEY_BYTES} bytes as base64: openssl rand -base64 32"
            )
        id = id or hashlib.sha256(key).hexdigest()[:8]
        if id in keys:
            raise ValueError(f"the id of key {number} is given twice")
        keys[id] = key
    return list(keys.items())


def _decoded(encoded: str) -> bytes:
    """Base64 in either alphabet, with or without its padding; empty where it is neither."""
    usual = encoded.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(usual + "=" * (-len(usual) % 4), validate=True)
    except ValueError:
        return b""


def load_settings(env_file: str | None = ".env") -> Settings:
    """Read and check everything. Raises ConfigError with one line a mistake, all of them at once."""
    lines: list[str] = []
    try:
        settings = Settings(_env_file=env_file)
    except ValidationError as error:
        lines = _lines(error)
        settings = _without(error, env_file)
    lines += settings.problems()
    if lines:
        raise ConfigError("\n".join(lines))
    return settings


def usable_settings(env_file: str | None = ".env") -> Settings:
    """The settings with every mistake left at its default: to look further, never to run with."""
    try:
        return Settings(_env_file=env_file)
    except ValidationError as error:
        return _without(error, env_file)


def _without(error: ValidationError, env_file: str | None) -> Settings:
    """The settings with every faulty variable at its default, so that the rest can be checked too."""
    faulty = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
    defaults = {}
    for field in Settings.model_fields.values():
        for name in variable_names(field.validation_alias):
            if name in faulty:
                defaults[name] = field.default
    return Settings(_env_file=env_file, **defaults)


def variable_names(alias: object) -> list[str]:
    """The environment variables a field reads, first one first."""
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias)]


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        message = str(fault["msg"]).removeprefix("Value error, ")
        where = _with_aliases(str(fault["loc"][0])) if fault["loc"] else ""
        lines.append(f"{where}: {message}" if where else message)
    return lines


def _with_aliases(name: str) -> str:
    """The mistake is reported under a field's first name, whichever of its names was set."""
    for field in Settings.model_fields.values():
        first, *others = variable_names(field.validation_alias)
        if first == name and others:
            return f"{name} (or {', '.join(others)})"
    return name


def with_generated_key(settings: Settings) -> tuple[Settings, str | None]:
    """In development a missing API key is made once and kept in DATA_DIR (mode 600).

    Returns the settings with a key, and the key itself when it was made just now, to be printed once.
    """
    if settings.api_keys:
        return settings, None
    path = settings.data_dir / "api-key"
    fresh = None
    key = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if not key:  # an empty file is what a crash between making and filling it leaves
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        key = fresh = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
    return settings.model_copy(update={"backend_api_key": (SecretStr(key),)}), fresh
