"""A fuzz over the public functions: each call ends in a right result or in an error that says what was expected."""
