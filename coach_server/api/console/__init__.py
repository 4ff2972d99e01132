"""The console: pages for people, rendered here and brought to life by small modules in `static/`."""
