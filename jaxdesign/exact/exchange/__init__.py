"""Exchange: labels moved from pair to pair until no move helps."""
