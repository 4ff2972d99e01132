"""The practised sale by voice: audio between client and model, and what a session makes of it."""
