"""A machine in a file: how its state is written, what is refused of it, and which frame holds which page."""
