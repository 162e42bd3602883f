"""Image files and archives, decoded with limits on size and number."""
