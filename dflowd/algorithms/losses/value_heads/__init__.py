"""Losses of models with a value head: critics and reward models."""
