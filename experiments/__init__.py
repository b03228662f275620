"""What is trained: one file an experiment."""
