"""No avatar: the session is text and sound. The default where no vendor's key is set."""

from __future__ import annotations

from coach_server.errors import ProviderError
from coach_server.providers.avatar import (
    AvatarCapabilities,
    AvatarSession,
    AvatarWish,
    Delivery,
    RoomCommand,
    Speaks,
    Spoken,
    StopReason,
)


class Off:
    name = "off"

    def capabilities(self) -> AvatarCapabilities:
        return AvatarCapabilities(
            self.name, modes=("text",), languages=(), configured=False, speaks=Speaks.NONE
        )

    async def create(self, wish: AvatarWish) -> AvatarSession:
        raise ProviderError("There is no avatar on this server.")

    async def refresh(self, session: AvatarSession) -> AvatarSession:
        raise ProviderError("There is no avatar on this server.")

    async def speak(self, session_id: str, text: str) -> Spoken:
        """The client shows the text, or says it with a voice of its own."""
        return Spoken(Delivery.CLIENT)

    async def interrupt(self, session_id: str) -> RoomCommand | None:
        return None

    async def keep_alive(self, session_id: str) -> None:
        return None

    async def stop(self, session_id: str, reason: StopReason) -> None:
        return None

    async def erase(self, session_id: str) -> bool:
        return True  # nothing was ever kept anywhere
