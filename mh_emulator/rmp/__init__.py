"""The reverse map table of SEV-SNP: who owns a page of memory, and what may be done with it."""
