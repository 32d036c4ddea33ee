"""The address-space schemes, one a file."""
