"""What may stand in a spec: shapes of values, expressions, operators and their keys."""
