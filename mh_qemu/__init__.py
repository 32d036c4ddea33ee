"""QEMU, as a second machine: TCG only, driven over QMP."""
