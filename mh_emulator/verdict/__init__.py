"""Can the secure processor isolate the helper? Every sequence of commands that was proposed, executed."""
