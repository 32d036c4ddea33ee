"""The edk2 series, a folder for each release, and the driver that they all build."""

from pathlib import Path

FOLDER = Path(__file__).parent
DRIVER = FOLDER / "driver"
