"""A small guest that works on its memory while it is moved."""
