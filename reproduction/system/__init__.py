"""What every part needs of the operating system: files written whole, processes that end together, a cache folder."""
