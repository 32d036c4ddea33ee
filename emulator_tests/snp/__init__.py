"""SNP: the secure processor, its host and its guests."""
