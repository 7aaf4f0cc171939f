"""The Swift driver on a real Swift."""
