"""Which instructions of the linked blobs the suite runs, and which sides of their branches."""
