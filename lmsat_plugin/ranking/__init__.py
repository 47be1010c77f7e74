"""Models ranked side by side: the leaderboard, its tests, its formats, and its data set on the Hub."""
