"""Simulations on the wire: the relay's WebSocket, REST, and the pages of the dashboard."""
