"""HTTP over a Registry: accepting, parsing, delivering; knows no storage."""
