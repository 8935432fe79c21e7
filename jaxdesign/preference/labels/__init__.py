"""Labels: tasks for annotators, answers, the store that keeps them, files."""
