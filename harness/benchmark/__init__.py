"""What `harness.bench` times: the harness against the plain scripts."""
