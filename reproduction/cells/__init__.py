"""Configs to cells: typed values of what one table cell computes, and the location of its model and data."""
