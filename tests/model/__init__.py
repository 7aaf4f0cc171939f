"""Models: every interleaving of small worlds, driven by the code that runs."""
