"""Benchmarks: `build.py bench` runs them."""
