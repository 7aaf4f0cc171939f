"""The tests; a folder per package, tests/stage for the real parts they run against."""
