"""What stands behind the scripts. tables.py is that of all scripts that take a table; the others have a module each."""
