"""Batch jobs: rows of any size in (`table`), kinds of work (`work`), answers that survive a crash (`output`)."""
