"""What is known about other people's models: shapes, test results, and pairs that suit each other."""
