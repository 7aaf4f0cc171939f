"""Machines for tests: user-mode Linux kernels in a network of their own, a file server and its clients."""
