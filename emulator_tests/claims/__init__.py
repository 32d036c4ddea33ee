"""What is true of every linked byte, whichever of them run."""
