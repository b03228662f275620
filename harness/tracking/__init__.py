"""What is recorded, and the one place that knows MLflow."""
