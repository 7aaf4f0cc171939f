"""The stage: real servers and clients that tests run against, and content to serve."""
