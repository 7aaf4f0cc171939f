"""A Registry over a Registry: what is kept, how it is filled, and for how long."""
