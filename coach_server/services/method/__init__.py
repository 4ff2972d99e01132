"""Methods read from their files, and what they see in a talk; what the coach knows about them."""
