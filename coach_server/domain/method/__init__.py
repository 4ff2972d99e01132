"""A sales method as data, and what it makes of what is said: techniques, phases, steps, progress."""
