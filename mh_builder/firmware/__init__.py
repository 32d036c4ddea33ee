"""OVMF images: firmware volumes, the GUIDed table, and the helper put into a prebuilt image."""
