"""Optimizers, schedules and parameter groups: how a published recipe's numbers become a step."""
