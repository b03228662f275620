"""The command line: flags, their refusals, progress on the screen, exit statuses."""
