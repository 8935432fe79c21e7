"""Features that are not in memory, read a part at a time: one file for each way they are kept."""
