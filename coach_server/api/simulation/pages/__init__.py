"""The dashboard and the browser client of the simulation."""
