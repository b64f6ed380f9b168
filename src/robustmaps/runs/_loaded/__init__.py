"""Networks and results by what a user calls them."""
