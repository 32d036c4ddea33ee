"""Small faults planted in the linked blobs, each of which the suite has to notice."""
