"""Numbered, forward-only migrations of the two databases, applied under a lock."""
