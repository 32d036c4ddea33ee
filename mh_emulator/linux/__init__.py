"""A Linux kernel as a guest: how it is loaded without firmware, a first process for it, and its migration."""
