"""Adding dendrites while a model trains, after PerforatedAI."""
