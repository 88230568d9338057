"""System utilities: atomic files, child processes that end with their parent, the cache folder, hub requests."""
