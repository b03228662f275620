"""What every room stands on: errors, field rules, the project, statistics, processes."""
