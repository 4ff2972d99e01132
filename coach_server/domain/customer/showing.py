"""Which attitude the customer shows while he answers, in the terms of whatever method is practised."""

from __future__ import annotations

from dataclasses import dataclass

from coach_server.domain.method.methodology import Attitude, Methodology, TipType

RESISTS = ("twijfel", "bezwaar", "uitstel", "angst")
# Attitudes that have lines of their own, and what stands for those of other methods.
KINDS = {
    "positief": TipType.POSITIEF,
    "negatief": TipType.WAARSCHUWING,
    "vaag": TipType.OPEN,
    "ontwijkend": TipType.OPEN,
    "vraag": TipType.WEDERVRAAG,
    **dict.fromkeys(RESISTS, TipType.LOCK),
}
BUCKET_OF = {
    TipType.POSITIEF: "positief",
    TipType.WAARSCHUWING: "negatief",
    TipType.OPEN: "vaag",
    TipType.WEDERVRAAG: "vraag",
    TipType.LOCK: "bezwaar",
}


@dataclass(slots=True)
class Showing:
    """`drawn`: the id of the attitude drawn for this answer; `id`: of the one he shows in the end."""

    method: Methodology
    drawn: str
    id: str

    @property
    def kind(self) -> TipType | None:
        attitude = self.method.attitude(self.id)
        return attitude.tip_type if attitude else None

    @property
    def bucket(self) -> str:
        """The bucket of the attitude shown: its key, or for another method's the one of its kind."""
        attitude = self.method.attitude(self.id)
        if attitude is None:
            return "vaag"
        return attitude.key if attitude.key in KINDS else BUCKET_OF[attitude.tip_type]

    def show(self, name: str) -> None:
        self.id = self.id_of(name)

    def id_of(self, name: str) -> str:
        """The id of an attitude in this method; of one it does not have, the first of its kind."""
        attitude = self.method.attitude(name)
        if attitude is not None:
            return attitude.id
        same = (a.id for a in self.method.attitudes if a.tip_type is KINDS.get(name))
        return next(same, self.drawn)


def objections_of(attitude: Attitude) -> set[str]:
    """The kinds of objection that show an attitude: its key's; for a key that only another method has, the
    plain one, and when it comes after a trigger those that come with deciding."""
    if attitude.key in RESISTS:
        return {attitude.key}
    return set(RESISTS) - {"bezwaar"} if attitude.needs else {"bezwaar"}
