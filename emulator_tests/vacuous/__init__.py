"""Tests that cannot fail, found: what a test calls answers wrongly, and the test has to notice."""
