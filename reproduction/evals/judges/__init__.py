"""Refusal judges: each module has `refuses(prompt, response) -> bool`."""
