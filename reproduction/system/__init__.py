"""What every part needs of the system: files written whole, processes that end together, the cache, the hub."""
