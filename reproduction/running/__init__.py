"""Training and evaluation of cells, in one process or several; finished work is not repeated."""
