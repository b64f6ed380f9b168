"""What several test modules share: networks, oracles, pages, run folders."""
