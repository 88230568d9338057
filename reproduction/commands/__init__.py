"""What stands behind each script, one module a command."""
