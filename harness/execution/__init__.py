"""Trainings, executed: prepared, driven, recorded, resumed, verified, recovered."""
