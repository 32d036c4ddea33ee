"""A host of SNP guests, and the guests as far as they speak to the secure processor."""
