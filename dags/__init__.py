"""DAG files: schedule and wiring, nothing else. What the tasks do stands in `plugins`."""
