"""Tests: everything the project says, executed."""
