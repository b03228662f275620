"""What is trained and how: experiment, data, device, loop, checkpoint. It knows no recorder."""
