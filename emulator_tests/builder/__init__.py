"""Linker, schemes, page tables and image files."""
