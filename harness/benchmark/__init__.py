"""The yardsticks, and what times the harness against them."""
