"""Who may read what: callers, gates and verdicts."""
