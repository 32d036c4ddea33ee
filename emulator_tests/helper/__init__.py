"""The linked helper on the emulated machine."""
