"""Degradations as pure functions: what turns a clean image into the one we observe."""
