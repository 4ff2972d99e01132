"""Practice on the wire: routes and events of sessions, and the pages to practise on."""
