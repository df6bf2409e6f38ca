"""Builds, loads and describes the networks that are trained."""
