"""The page: its static files, and how they are sent."""
