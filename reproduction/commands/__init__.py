"""Implementations of the scripts: tables.py for all scripts that take a table, one module for each of the others."""
