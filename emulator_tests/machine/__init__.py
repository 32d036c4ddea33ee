"""The emulated machine, looked at from its guests and its host."""
