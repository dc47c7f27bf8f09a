"""A trainer that keeps the whole contract of the stages and computes nothing; only tests put it on the path."""
