"""`python -m coach_server.cli <command>`, for where the `coach` script is not on the path."""

from __future__ import annotations

import sys

from coach_server.cli import main

sys.exit(main())
