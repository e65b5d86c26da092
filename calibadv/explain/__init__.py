"""Why a search got its advantage, and what another method would have said: stored groups, credited again."""
