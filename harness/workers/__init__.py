"""Trainings on several processes: the coordinator, the worker pool, the worker."""
