"""A small UEFI around one driver: enough of its services to run the loader, with every failure that they can have."""
