"""What is searched: one file a study."""
