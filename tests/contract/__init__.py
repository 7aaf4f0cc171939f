"""The storage contract: one suite of clauses for every driver and for the portable store."""
