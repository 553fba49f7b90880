"""What losses are made of: ratios, divergences, and what a completion's tokens have in common."""
