"""The helper as part of an edk2 tree: patch series, and the driver's folder."""
