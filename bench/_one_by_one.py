"""This server with a commit for each write, where the real one shares a commit among what came meanwhile."""

from __future__ import annotations

import sys

from coach_server.__main__ import main
from coach_server.storage import journal

if __name__ == "__main__":
    journal.COMMIT_ROWS = 1
    defaults = journal.Journal.__init__.__kwdefaults__
    defaults["window_s"] = 0.0
    sys.exit(main())
