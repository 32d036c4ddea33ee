"""IGVM files: all that a loader needs to launch a guest, as a list of directives with their pages."""
