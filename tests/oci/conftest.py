"""How Hypothesis runs here: without its deadline for each example, which on a busy machine is a timed assertion."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
