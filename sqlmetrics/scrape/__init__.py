"""What answers a scrape: the query, what it is made into, and the text."""
