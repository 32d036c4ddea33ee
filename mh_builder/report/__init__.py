"""What page tables really map: read back from any memory, laid out, walked, audited, compared, drawn."""
