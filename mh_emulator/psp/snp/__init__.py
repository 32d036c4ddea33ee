"""The secure processor for SEV-SNP guests."""
