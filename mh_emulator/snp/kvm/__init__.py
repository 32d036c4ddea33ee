"""SNP guests that KVM runs: what becomes of attacks on them, and what KVM lacks for their migration."""
