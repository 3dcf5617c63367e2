"""Training: losses, schedules, and what a network is asked for on a clip."""
