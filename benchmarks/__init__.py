"""Side-by-side measurements; README.md has the figures and the commands that give them."""
