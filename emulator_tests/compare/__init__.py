"""The comparison: attacks and cells are what they say, and could have come out otherwise."""
