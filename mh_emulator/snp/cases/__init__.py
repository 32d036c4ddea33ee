"""What can be asked of the secure processor and of the RMP, and what a host may try with them, by subject."""
