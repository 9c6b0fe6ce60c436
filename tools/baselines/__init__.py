"""Simple references for the leaderboard: codes that any density model should beat."""
