"""The page in the browser: a server on this machine, the work behind its requests, and one static page."""
