"""The leaderboard: a table for each release of a data set, of models, baselines and published figures."""
