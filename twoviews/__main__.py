"""`python -m twoviews`: the `twoviews` command."""

from twoviews.cli.main import app

app()
