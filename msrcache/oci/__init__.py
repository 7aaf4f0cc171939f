"""The vocabulary of registries: values and pure functions; imports only the standard library."""
