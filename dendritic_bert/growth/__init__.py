"""Growing dendrites during a training."""
