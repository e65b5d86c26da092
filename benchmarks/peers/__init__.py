"""What calibadv is measured against: TRL from the package registry, and our own minimal stand-ins for what it lacks."""
