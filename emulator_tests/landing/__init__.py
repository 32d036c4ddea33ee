"""The landing of SEV-ES guests, looked at from a guest that knows nothing of it."""
