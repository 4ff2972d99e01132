"""Practising with a simulated customer: sessions, answers, analysis, feedback, drills, progress."""
