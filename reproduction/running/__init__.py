"""Cells to runs: a cell is trained and evaluated, in this process or several; nothing finished is run again."""
