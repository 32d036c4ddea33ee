"""What crosses borders: the ABI header as Python, and images as every loader reads them."""
