"""What Airflow sees: the functions behind the tasks, the notifiers, and the pages in its web UI.

Modules import cheaply; what is heavy is imported inside the functions, in the process of the task.
"""
