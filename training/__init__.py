"""The labelled sentences the detector learned from, and what trains and measures it."""
