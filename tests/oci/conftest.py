"""Hypothesis without its deadline for each example: on a busy machine that is a timed assertion."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
