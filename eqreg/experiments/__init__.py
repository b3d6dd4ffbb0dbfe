"""From one run to a table: runs, tuning, campaigns, comparison, stored results, trained weights, command line."""
