"""A practice session and what it comes to: the machine, hints, score card, drills, what the coach knows."""
