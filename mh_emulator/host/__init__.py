"""The host: the part that QEMU plays."""
