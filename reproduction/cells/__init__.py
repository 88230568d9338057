"""Configs to cells: what one cell of a table computes, as typed values, and where its model and data lie."""
