"""What every room uses: errors, field rules, the project, files, processes, statistics."""
