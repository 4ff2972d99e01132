"""The simulated customer of practice: who he is, what moves him, what he says."""
